//! Numbers below `/proc/sys`.

use std::{fs, io};

/// What `key`, such as `net.core.somaxconn`, reads in the calling thread's network namespace;
/// nothing where this kernel or this namespace does not have it.
///
/// # Errors
///
/// When it cannot be read, or is no number.
pub fn number(key: &str) -> io::Result<Option<u64>> {
    match fs::read_to_string(format!("/proc/sys/{}", key.replace('.', "/"))) {
        Ok(text) => text
            .trim_end()
            .parse()
            .map(Some)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_by_the_name_that_operators_use() {
        assert!(number("net.core.somaxconn").expect("readable").is_some());
        assert_eq!(number("net.core.no_such_thing").expect("absent"), None);
        let text = number("kernel.ostype").expect_err("no number");
        assert_eq!(text.kind(), io::ErrorKind::InvalidData);
    }
}
