//! Old listeners' settings and new ones'.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{Setting, Settings, Value, Weight};
use crate::domain::{Address, Refusal};

/// What the listeners of a group are set to. Thousands of them are mostly set alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// Where the group is.
    pub address: Address,
    /// Those of whoever serves.
    pub old: BTreeSet<Settings>,
    /// Those of whoever is to serve.
    pub new: BTreeSet<Settings>,
}

/// New listeners that are set to something that no old one is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where they are.
    pub address: Address,
    /// What differs.
    pub setting: Setting,
    /// What the old ones are set to.
    pub old: Vec<Value>,
    /// What new ones are set to and no old one is.
    pub new: Vec<Value>,
}

/// What the caller of a migration is told that goes ahead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingsWarning {
    /// A difference of little weight, or one that was allowed.
    Differs(Difference),
    /// Nobody knows whether these differ.
    Unreadable {
        /// Where.
        address: Address,
        /// Which.
        settings: Vec<Setting>,
        /// Why.
        why: String,
    },
}

/// Compares, group by group, what every new listener is set to with what the old ones are set to.
///
/// The listeners of one instance may differ among themselves, as those of workers do that are bound
/// to a CPU each. A new listener's value passes where any old listener has it: until now a
/// connection could meet each of those, the kernel and the steering table choosing by hash, so that
/// it meets nothing new. The other way round, an old value that no new listener has is no
/// difference: it ends with its instance.
///
/// What is `allowed` weighs less by one step: a refusal becomes a warning, a warning is left out.
/// What could not be read is told, and never taken to be equal.
///
/// # Errors
///
/// [`Refusal::SettingsDiffer`] for the first difference that is not allowed; it names the others.
pub fn compare(
    groups: &[GroupSettings],
    allowed: &BTreeSet<Setting>,
) -> Result<Vec<SettingsWarning>, Refusal> {
    let mut refused = Vec::new();
    let mut warnings = Vec::new();
    for group in groups {
        for setting in Setting::ALL {
            let Some(difference) = difference(group, setting) else {
                continue;
            };
            match (setting.weight(), allowed.contains(&setting)) {
                (Weight::Refused, false) => refused.push(difference),
                (Weight::Refused, true) | (Weight::Told, false) => {
                    warnings.push(SettingsWarning::Differs(difference));
                }
                (Weight::Told, true) => {}
            }
        }
        warnings.extend(unreadable(group, allowed));
    }
    match refused.split_first() {
        None => Ok(warnings),
        Some((first, others)) => {
            let others: BTreeSet<Setting> = others.iter().map(|it| it.setting).collect();
            let also = others.into_iter().filter(|it| *it != first.setting);
            Err(Refusal::SettingsDiffer {
                address: first.address.clone(),
                setting: first.setting,
                old: first.old_text(),
                new: first.new_text(),
                also: also.collect(),
            })
        }
    }
}

fn difference(group: &GroupSettings, setting: Setting) -> Option<Difference> {
    let old = readable(&group.old, setting);
    if old.is_empty() {
        return None;
    }
    let new = readable(&group.new, setting);
    let new: Vec<Value> = new.difference(&old).map(|it| (*it).clone()).collect();
    if new.is_empty() {
        return None;
    }
    Some(Difference {
        address: group.address.clone(),
        setting,
        old: old.into_iter().cloned().collect(),
        new,
    })
}

fn readable(listeners: &BTreeSet<Settings>, setting: Setting) -> BTreeSet<&Value> {
    let values = listeners.iter().filter_map(|it| it.get(&setting));
    values
        .filter(|value| !matches!(value, Value::Unreadable(_)))
        .collect()
}

/// One warning for each reason.
fn unreadable(group: &GroupSettings, allowed: &BTreeSet<Setting>) -> Vec<SettingsWarning> {
    // Without either there is nothing that could differ.
    if group.old.is_empty() || group.new.is_empty() {
        return Vec::new();
    }
    let mut by_reason: BTreeMap<&str, BTreeSet<Setting>> = BTreeMap::new();
    for (setting, value) in group.old.iter().chain(&group.new).flatten() {
        if let Value::Unreadable(why) = value
            && !allowed.contains(setting)
        {
            by_reason.entry(why).or_default().insert(*setting);
        }
    }
    by_reason
        .into_iter()
        .map(|(why, settings)| SettingsWarning::Unreadable {
            address: group.address.clone(),
            settings: settings.into_iter().collect(),
            why: why.to_owned(),
        })
        .collect()
}

impl Difference {
    fn old_text(&self) -> String {
        text(&self.old)
    }

    /// Secrets are not shown, so that different keys may read the same.
    fn new_text(&self) -> String {
        let new = text(&self.new);
        if new == self.old_text() {
            format!("{new} with another secret")
        } else {
            new
        }
    }
}

fn text(values: &[Value]) -> String {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    values.join(" or ")
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address, setting, ..
        } = self;
        let (old, new) = (self.old_text(), self.new_text());
        write!(
            f,
            "{setting} of the new listeners on {address} is {new}, and was {old}"
        )
    }
}

impl fmt::Display for SettingsWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs(difference) => difference.fmt(f),
            Self::Unreadable {
                address,
                settings,
                why,
            } => {
                let names: Vec<&str> = settings.iter().map(|it| it.as_str()).collect();
                let names = names.join(", ");
                write!(f, "{names} of the listeners on {address}: unknown: {why}")
            }
        }
    }
}
