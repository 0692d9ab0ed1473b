use proptest::prelude::*;

use super::*;
use crate::domain::{Address, Refusal};

fn address() -> Address {
    "0.0.0.0:7777".parse().expect("an address")
}

fn group(old: &[&[(Setting, Value)]], new: &[&[(Setting, Value)]]) -> GroupSettings {
    let all = |listeners: &[&[(Setting, Value)]]| {
        let listeners = listeners.iter();
        listeners.map(|it| it.iter().cloned().collect()).collect()
    };
    GroupSettings {
        address: address(),
        old: all(old),
        new: all(new),
    }
}

fn number(setting: Setting, number: i64) -> [(Setting, Value); 1] {
    [(setting, Value::Number(number))]
}

fn unreadable(setting: Setting) -> [(Setting, Value); 1] {
    [(setting, Value::Unreadable("why".to_owned()))]
}

fn keys(secrets: &[&str]) -> [(Setting, Value); 1] {
    let keys = secrets.iter().map(|secret| Key {
        peer: "10.0.0.0/24".to_owned(),
        rest: secret.as_bytes().to_vec(),
    });
    [(Setting::TcpMd5sig, Value::Keys(keys.collect()))]
}

fn allow(settings: &[Setting]) -> BTreeSet<Setting> {
    settings.iter().copied().collect()
}

fn told(
    group: GroupSettings,
    allowed: &[Setting],
) -> Result<Vec<String>, (Setting, String, String)> {
    match compare(&[group], &allow(allowed)) {
        Ok(warnings) => Ok(warnings.iter().map(ToString::to_string).collect()),
        Err(Refusal::SettingsDiffer {
            setting, old, new, ..
        }) => Err((setting, old, new)),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn names_are_names_of_one_setting_each() {
    for setting in Setting::ALL {
        assert_eq!(setting.as_str().parse(), Ok(setting));
    }
    let distinct: BTreeSet<&str> = Setting::ALL.map(Setting::as_str).into();
    assert_eq!(distinct.len(), Setting::ALL.len());
    let error = "TCP_SAVE_SYN".parse::<Setting>().expect_err("no name");
    assert!(error.to_string().contains("there are tcp-save-syn, "));
}

#[test]
fn every_setting_has_its_weight_and_gives_way_by_one_step() {
    for setting in Setting::ALL {
        let differ = || group(&[&number(setting, 1)], &[&number(setting, 2)]);
        let warning = vec![format!(
            "{setting} of the new listeners on 0.0.0.0:7777 is 2, and was 1"
        )];
        match setting.weight() {
            Weight::Refused => {
                let refused = Err((setting, "1".to_owned(), "2".to_owned()));
                assert_eq!(told(differ(), &[]), refused);
                assert_eq!(told(differ(), &[setting]), Ok(warning));
            }
            Weight::Told => {
                assert_eq!(told(differ(), &[]), Ok(warning));
                assert_eq!(told(differ(), &[setting]), Ok(vec![]));
            }
        }
    }
}

#[test]
fn the_first_refusal_names_the_others() {
    let old = [
        (Setting::TcpSaveSyn, Value::Number(0)),
        (Setting::SoMark, Value::Number(0)),
        (Setting::Backlog, Value::Number(0)),
    ];
    let new = old.clone().map(|(it, _)| (it, Value::Number(1)));
    let groups = [group(&[&old], &[&new]), group(&[&old], &[&new])];
    let refusal = compare(&groups, &BTreeSet::new()).expect_err("they differ");
    let expected = Refusal::SettingsDiffer {
        address: address(),
        setting: Setting::TcpSaveSyn,
        old: "0".to_owned(),
        new: "1".to_owned(),
        also: vec![Setting::SoMark],
    };
    assert_eq!(refusal, expected);
    assert_eq!(refusal.code(), "settings-differ");
    let hint = refusal.hint().expect("a hint");
    let both = "`--allow-mismatch tcp-save-syn --allow-mismatch so-mark`";
    assert!(hint.contains(both), "{hint}");
}

#[test]
fn any_old_listener_vouches_for_a_new_one() {
    let cpu = |it| number(Setting::SoIncomingCpu, it);
    let workers = || group(&[&cpu(0), &cpu(1)], &[&cpu(1), &cpu(0), &cpu(0)]);
    assert_eq!(told(workers(), &[]), Ok(vec![]));
    let fewer = group(&[&cpu(0), &cpu(1)], &[&cpu(1)]);
    assert_eq!(told(fewer, &[]), Ok(vec![]));
    let more = group(&[&cpu(0), &cpu(1)], &[&cpu(0), &cpu(2)]);
    let text = "so-incoming-cpu of the new listeners on 0.0.0.0:7777 is 2, and was 0 or 1";
    assert_eq!(told(more, &[]), Ok(vec![text.to_owned()]));
}

#[test]
fn what_the_kernel_lacks_equals_only_that() {
    let absent = || [(Setting::TcpAo, Value::Absent)];
    assert_eq!(told(group(&[&absent()], &[&absent()]), &[]), Ok(vec![]));
    let one_has = group(&[&absent()], &[&number(Setting::TcpAo, 0)]);
    let unknown = "unknown to the kernel".to_owned();
    let refused = Err((Setting::TcpAo, unknown, "0".to_owned()));
    assert_eq!(told(one_has, &[]), refused);
}

#[test]
fn what_cannot_be_read_is_told_and_never_equal() {
    let mark = Setting::SoMark;
    let text = vec!["so-mark of the listeners on 0.0.0.0:7777: unknown: why".to_owned()];
    let both = || group(&[&unreadable(mark)], &[&unreadable(mark)]);
    assert_eq!(told(both(), &[]), Ok(text.clone()));
    assert_eq!(told(both(), &[mark]), Ok(vec![]));
    for (old, new) in [
        (unreadable(mark), number(mark, 1)),
        (number(mark, 1), unreadable(mark)),
    ] {
        assert_eq!(told(group(&[&old], &[&new]), &[]), Ok(text.clone()));
    }
    let some_old = group(&[&unreadable(mark), &number(mark, 1)], &[&number(mark, 2)]);
    let refused = Err((mark, "1".to_owned(), "2".to_owned()));
    assert_eq!(told(some_old, &[]), refused);
}

#[test]
fn what_nobody_has_is_nothing_to_compare_with() {
    let mark = number(Setting::SoMark, 1);
    assert_eq!(told(group(&[], &[&mark]), &[]), Ok(vec![]));
    assert_eq!(told(group(&[&mark], &[]), &[]), Ok(vec![]));
    let unknown = unreadable(Setting::SoMark);
    assert_eq!(told(group(&[], &[&unknown]), &[]), Ok(vec![]));
}

#[test]
fn keys_are_compared_and_not_shown() {
    let same = group(&[&keys(&["a", "b"])], &[&keys(&["b", "a"])]);
    assert_eq!(told(same, &[]), Ok(vec![]));
    let none = group(&[&keys(&["secret"])], &[&keys(&[])]);
    let refused = (
        Setting::TcpMd5sig,
        "a key for 10.0.0.0/24".to_owned(),
        "no key".to_owned(),
    );
    assert_eq!(told(none, &[]), Err(refused));
    let other = group(&[&keys(&["secret"])], &[&keys(&["hidden"])]);
    assert!(!format!("{other:?}").contains("115, 101"), "{other:?}");
    let refused = (
        Setting::TcpMd5sig,
        "a key for 10.0.0.0/24".to_owned(),
        "a key for 10.0.0.0/24 with another secret".to_owned(),
    );
    assert_eq!(told(other, &[]), Err(refused));
}

fn any_listener() -> impl Strategy<Value = Settings> {
    let value = prop_oneof![
        4 => (0_i64..3).prop_map(Value::Number),
        1 => Just(Value::Absent),
        1 => Just(Value::Unreadable("why".to_owned())),
    ];
    proptest::collection::vec(value, Setting::ALL.len())
        .prop_map(|values| Setting::ALL.into_iter().zip(values).collect())
}

fn any_group() -> impl Strategy<Value = GroupSettings> {
    let listeners = || proptest::collection::btree_set(any_listener(), 0..4);
    (listeners(), listeners()).prop_map(|(old, new)| GroupSettings {
        address: address(),
        old,
        new,
    })
}

fn any_allowed() -> impl Strategy<Value = BTreeSet<Setting>> {
    let all = Setting::ALL.to_vec();
    proptest::sample::subsequence(all, 0..=Setting::ALL.len())
        .prop_map(|chosen| chosen.into_iter().collect())
}

proptest! {
    /// A new listener that is like some old one is never a reason for anything, whatever else the
    /// old ones are like, but for what cannot be read.
    #[test]
    fn a_copy_differs_in_nothing(mut group in any_group()) {
        group.new = group.old.iter().rev().take(2).cloned().collect();
        let warnings = compare(&[group], &BTreeSet::new()).expect("no refusal");
        let unreadable = |it: &SettingsWarning| matches!(it, SettingsWarning::Unreadable { .. });
        prop_assert!(warnings.iter().all(unreadable));
    }

    /// Allowing what is refused is enough, and then it is told; allowing everything tells only of
    /// what would have been refused.
    #[test]
    fn what_is_refused_can_be_allowed(group in any_group(), allowed in any_allowed()) {
        let groups = [group];
        let mut allowed = allowed;
        while let Err(refusal) = compare(&groups, &allowed) {
            let Refusal::SettingsDiffer { setting, also, .. } = refusal else {
                panic!("{refusal}");
            };
            prop_assert_eq!(setting.weight(), Weight::Refused);
            prop_assert!(!allowed.contains(&setting));
            allowed.insert(setting);
            allowed.extend(also);
            let then = compare(&groups, &allowed).expect("all are named at once");
            let about = |it: &SettingsWarning| {
                matches!(it, SettingsWarning::Differs(it) if it.setting == setting)
            };
            prop_assert!(then.iter().any(about));
        }
        let all = compare(&groups, &Setting::ALL.into()).expect("everything is allowed");
        for warning in all {
            let SettingsWarning::Differs(difference) = warning else {
                panic!("{warning}");
            };
            prop_assert_eq!(difference.setting.weight(), Weight::Refused);
        }
    }
}
