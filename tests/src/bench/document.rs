//! The page that shows the results: what stands between a benchmark's markers is its latest report.

use std::{fs, path::Path};

use anyhow::{Context, Result};

/// Puts the text of a report between its benchmark's markers.
///
/// # Errors
///
/// Where the page cannot be read or written, or lacks the markers.
pub(super) fn update(page: &Path, name: &str, text: &str) -> Result<()> {
    let old = fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let new = replaced(&old, name, text)
        .with_context(|| format!("{} has no markers of {name}", page.display()))?;
    fs::write(page, new).with_context(|| page.display().to_string())
}

fn replaced(page: &str, name: &str, text: &str) -> Option<String> {
    const END: &str = "<!-- end -->";
    let begin = format!("<!-- bench: {name} -->");
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!(
        "{before}{begin}\n\n{}\n\n{END}{after}",
        text.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let page = "a\n<!-- bench: x -->\nold\n<!-- end -->\nb\n<!-- bench: y -->\n<!-- end -->\n";
        let expected =
            "a\n<!-- bench: x -->\n\nnew\n\n<!-- end -->\nb\n<!-- bench: y -->\n<!-- end -->\n";
        assert_eq!(replaced(page, "x", "new\n").as_deref(), Some(expected));
        assert_eq!(replaced(expected, "x", "new\n").as_deref(), Some(expected));
        assert_eq!(replaced(page, "z", "new"), None);
    }
}
