//! Arguments that more than one command takes, parsed where they enter.

use std::{path::PathBuf, time::Duration};

/// A path that means the same to the daemon, whose working directory is another.
pub(super) fn path(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    let path = std::path::absolute(PathBuf::from(text)).map_err(|error| error.to_string())?;
    path.into_os_string()
        .into_string()
        .map_err(|_| "it is not UTF-8".to_owned())
}

/// A duration such as `30s` or `1m 30s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}, such as 30s or 1m30s"))
}

/// A duration as it travels.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A pid.
pub(super) fn pid(text: &str) -> Result<u32, String> {
    match text.parse::<i32>() {
        Ok(pid) if pid > 0 => Ok(pid.unsigned_abs()),
        Ok(_) | Err(_) => Err("a pid is a number from 1 on".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        assert_eq!(pid("17"), Ok(17));
        assert!(pid("0").is_err());
        assert!(pid("-3").is_err());
        assert!(pid("4294967295").is_err());
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(duration("soon").is_err());
        assert_eq!(path("/run/netns/a").as_deref(), Ok("/run/netns/a"));
        assert!(path("netns/a").is_ok_and(|path| path.starts_with('/')));
        assert!(path("").is_err());
    }
}
