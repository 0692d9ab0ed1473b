//! Units of systemd: their names, patterns of these, and which of a unit's processes is the instance.

use std::{collections::BTreeSet, fmt, str::FromStr};

use thiserror::Error;
use wildmatch::WildMatch;

use super::{Label, ProcessId, Refusal};

/// Room for a unit's name: systemd's own limit.
const LONGEST: usize = 255;

/// Kinds of unit that have processes which serve.
const KINDS: [&str; 2] = [".service", ".scope"];

/// What names have beside letters and digits.
const PUNCTUATION: &str = ":-_.\\@";

/// What stands for any characters, and for any one, in a pattern.
const WILDCARDS: &str = "*?";

/// A text that names no unit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnitError {
    /// Nothing there, or more than systemd takes.
    #[error("it has {0} characters, and units have 1 to {LONGEST}")]
    Length(usize),
    /// A character that units do not have.
    #[error("it has {0:?}; units have letters, digits and {PUNCTUATION:?}")]
    Character(char),
}

/// The name of a unit, such as `game@v2.service`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitName(String);

/// Names of units, such as `game@*.service`: `*` stands for any characters, `?` for any one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitPattern(String);

impl UnitName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What an instance is called after its unit, where that can be a label: the name, or what of it
    /// comes before `.service`. One that is too long for both, or escaped, gives none.
    #[must_use]
    pub fn label(&self) -> Option<Label> {
        let stem = self.0.rsplit_once('.').map_or(self.as_str(), |it| it.0);
        self.0.parse().or_else(|_| stem.parse()).ok()
    }
}

impl UnitPattern {
    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a pattern of that name.
    #[must_use]
    pub fn matches(&self, name: &UnitName) -> bool {
        WildMatch::new(&self.0).matches(&name.0)
    }
}

/// As systemctl(1) reads it: a name without a kind is a service's.
fn read(text: &str, wildcards: &str) -> Result<String, UnitError> {
    let name = if KINDS.iter().any(|kind| text.ends_with(kind)) || text.is_empty() {
        text.to_owned()
    } else {
        format!("{text}.service")
    };
    if name.is_empty() || name.len() > LONGEST {
        return Err(UnitError::Length(name.len()));
    }
    let allowed =
        |c: char| c.is_ascii_alphanumeric() || PUNCTUATION.contains(c) || wildcards.contains(c);
    match name.chars().find(|c| !allowed(*c)) {
        None => Ok(name),
        Some(found) => Err(UnitError::Character(found)),
    }
}

impl FromStr for UnitName {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        read(text, "").map(Self)
    }
}

impl FromStr for UnitPattern {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        read(text, WILDCARDS).map(Self)
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for UnitPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A process of a unit that holds listeners of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub process: ProcessId,
    /// Inodes of the listeners that it holds.
    pub listeners: BTreeSet<u32>,
    /// The processes that it descends from.
    pub ancestors: BTreeSet<u32>,
}

/// Which process of a unit is the instance: the one that holds every listener that any of them does.
/// Where several do, as a master and the workers that it shares its listeners with, it is the one
/// that the others descend from, or else the oldest. None where none holds any.
///
/// # Errors
///
/// [`Refusal::UnitAmbiguous`] where each has listeners that the others do not have: an instance is
/// one process, and ends with it.
pub fn choose(unit: &UnitName, holders: &[Holder]) -> Result<Option<ProcessId>, Refusal> {
    let all: BTreeSet<u32> = holders
        .iter()
        .flat_map(|it| it.listeners.iter().copied())
        .collect();
    let whole = || holders.iter().filter(|it| it.listeners == all);
    let leads = |one: &&Holder| {
        let pid = one.process.pid;
        holders
            .iter()
            .all(|it| it.process == one.process || it.ancestors.contains(&pid))
    };
    let oldest = || whole().min_by_key(|it| (it.process.start_time, it.process.pid));
    match whole().find(leads).or_else(oldest) {
        Some(holder) => Ok(Some(holder.process)),
        None if holders.is_empty() => Ok(None),
        None => Err(Refusal::UnitAmbiguous {
            unit: unit.clone(),
            pids: holders.iter().map(|it| it.process.pid).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(text: &str) -> UnitName {
        text.parse().expect(text)
    }

    fn holder(pid: u32, listeners: &[u32], ancestors: &[u32]) -> Holder {
        Holder {
            process: ProcessId {
                pid,
                start_time: u64::from(pid),
            },
            listeners: listeners.iter().copied().collect(),
            ancestors: ancestors.iter().copied().collect(),
        }
    }

    fn chosen(holders: &[Holder]) -> Result<Option<u32>, &'static str> {
        choose(&unit("game"), holders)
            .map(|it| it.map(|it| it.pid))
            .map_err(|it| it.code())
    }

    #[test]
    fn a_name_without_a_kind_is_a_services() {
        assert_eq!(unit("game").as_str(), "game.service");
        assert_eq!(unit("game.scope").as_str(), "game.scope");
        assert_eq!(unit("game@v1.2").as_str(), "game@v1.2.service");
        assert_eq!("".parse::<UnitName>(), Err(UnitError::Length(0)));
        assert_eq!(
            "x".repeat(250).parse::<UnitName>(),
            Err(UnitError::Length(258))
        );
        for (text, wrong) in [("a b", ' '), ("a/b", '/'), ("game@*", '*'), ("gämé", 'ä')] {
            assert_eq!(text.parse::<UnitName>(), Err(UnitError::Character(wrong)));
        }
        assert!("game@*".parse::<UnitPattern>().is_ok());
        assert!("game@[12]".parse::<UnitPattern>().is_err());
    }

    #[test]
    fn a_label_is_as_much_of_the_name_as_can_be_one() {
        let label = |text: &str| unit(text).label().map(|it| it.to_string());
        assert_eq!(label("game@v2").as_deref(), Some("game@v2.service"));
        let long = "a-name-of-thirty-characters-it";
        assert_eq!(long.len(), 30);
        assert_eq!(label(long).as_deref(), Some(long));
        assert_eq!(label(&"x".repeat(40)), None);
        assert_eq!(label(r"game\x2dserver"), None);
    }

    #[test]
    fn a_pattern_is_matched_whole() {
        let matches = |pattern: &str, name: &str| {
            let pattern: UnitPattern = pattern.parse().expect(pattern);
            pattern.matches(&unit(name))
        };
        assert!(matches("game@*.service", "game@v2.service"));
        assert!(matches("game@*", "game@.service"));
        assert!(matches("*", "anything.service"));
        assert!(matches("game@v?", "game@v2"));
        assert!(matches("*a*b*", "xxaxxaxxb.service"));
        assert!(!matches("game@*.service", "game@v2.scope"));
        assert!(!matches("game@*.service", "mygame@v2.service"));
        assert!(!matches("game@v?", "game@v22"));
        assert!(!matches("game", "game@v2"));
    }

    #[test]
    fn a_master_is_chosen_before_the_workers_that_share_its_listeners() {
        assert_eq!(chosen(&[]), Ok(None));
        assert_eq!(chosen(&[holder(7, &[1], &[])]), Ok(Some(7)));
        let workers = [
            holder(5, &[1, 2], &[9, 1]),
            holder(9, &[1, 2], &[1]),
            holder(6, &[1], &[9, 1]),
        ];
        assert_eq!(chosen(&workers), Ok(Some(9)));
    }

    #[test]
    fn workers_whose_master_holds_none_go_by_age() {
        let workers = [holder(6, &[1], &[2]), holder(5, &[1], &[2])];
        assert_eq!(chosen(&workers), Ok(Some(5)));
    }

    #[test]
    fn those_who_share_nothing_are_not_one_instance() {
        let strangers = [holder(5, &[1], &[2]), holder(6, &[2], &[2])];
        assert_eq!(chosen(&strangers), Err("unit-ambiguous"));
    }
}
