//! Kernels as Debian packages them. apt gets a list of sources and a state of its own, so that the
//! machine's stay as they are; where the packages are, it is told by the machine's own sources.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    ffi::OsString,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};

use crate::run;

/// The releases whose kernels are of interest: 5.10 is in the first, later ones in the others.
const SUITES: [&str; 3] = ["bullseye", "bookworm", "bookworm-backports"];

/// Those of them that have a suite for security updates, where the newest kernels are.
const SECURITY: [&str; 2] = ["bullseye-security", "bookworm-security"];

/// Lists that are older are fetched anew.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

const NO_SOURCES: &str = "this machine's apt has no sources of Debian's: `apt-get update`";

/// apt, with places of its own.
#[derive(Debug)]
pub(super) struct Apt {
    home: PathBuf,
}

/// A kernel that can be had.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    version: Vec<u64>,
    /// How often Debian has built that version.
    build: u64,
    /// Of the package, in full.
    revision: String,
    package: String,
}

impl Apt {
    /// Keeps what it fetches in `home`.
    pub(super) fn new(home: PathBuf) -> Self {
        Self { home }
    }

    /// The file of the newest package that `wanted` names: in full, or by the version of its kernel
    /// or the beginning of that.
    pub(super) fn fetch(&self, wanted: &str) -> Result<PathBuf> {
        self.update()?;
        let candidates = self.candidates()?;
        let chosen = choose(&candidates, wanted)?;
        let packages = self.home.join("packages");
        fs::create_dir_all(&packages)?;
        let start = format!("{}_", chosen.package);
        // As apt writes a colon, which is all that a version has of what a name may not have.
        let revision = chosen.revision.replace(':', "%3a");
        let file = packages.join(format!("{start}{revision}_amd64.deb"));
        if !file.is_file() {
            let name = format!("{}={}", chosen.package, chosen.revision);
            run::run(
                self.command("apt-get")
                    .args(["-q", "download", &name])
                    .current_dir(&packages),
            )?;
        }
        if !file.is_file() {
            bail!("apt-get left no {}", file.display());
        }
        Ok(file)
    }

    fn update(&self) -> Result<()> {
        let sources = self.sources();
        let age = fs::metadata(&sources)
            .and_then(|it| it.modified())
            .ok()
            .and_then(|it| SystemTime::now().duration_since(it).ok());
        if age.is_some_and(|it| it < FRESH) {
            return Ok(());
        }
        for directory in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(self.home.join(directory))?;
        }
        fs::write(&sources, of_suites(&targets()?)?)?;
        let updated = run::run(self.command("apt-get").args(["-q", "update"]));
        if updated.is_err() {
            // So that it is tried again.
            fs::remove_file(&sources)?;
        }
        updated
    }

    fn candidates(&self) -> Result<Vec<Candidate>> {
        let names = run::output(self.command("apt-cache").args(["pkgnames", "linux-image-"]))?;
        let names = names.lines().filter(|it| is_cloud_kernel(it));
        let table = run::output(self.command("apt-cache").arg("madison").args(names))?;
        Ok(table.lines().filter_map(candidate).collect())
    }

    fn command(&self, program: &str) -> Command {
        let option = |name: &str, value: &Path| {
            let mut option = OsString::from(format!("{name}="));
            option.push(value);
            option
        };
        let mut command = Command::new(program);
        for (name, value) in [
            ("Dir::Etc::sourcelist", self.sources().as_path()),
            ("Dir::Etc::sourceparts", Path::new("-")),
            ("Dir::State", &self.home),
            ("Dir::State::status", Path::new("/var/lib/dpkg/status")),
            ("Dir::Cache", &self.home.join("cache")),
            ("Acquire::Languages", Path::new("none")),
            // What software centres show.
            (
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled",
                Path::new("false"),
            ),
            // The user that downloads otherwise can seldom write to a checkout.
            ("APT::Sandbox::User", Path::new("root")),
        ] {
            command.arg("-o").arg(option(name, value));
        }
        command
    }

    fn sources(&self) -> PathBuf {
        self.home.join("sources.list")
    }
}

/// Where this machine's own packages come from.
pub(super) fn mirror() -> Result<String> {
    let targets = targets()?;
    let place = places(&targets).remove(&false);
    place.map(ToOwned::to_owned).context(NO_SOURCES)
}

/// What apt knows to fetch.
fn targets() -> Result<String> {
    run::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(COMPONENT) $(RELEASE) $(REPO_URI) $(SIGNED_BY)",
    ]))
}

/// Where Debian's packages are, and, under true, its security updates.
fn places(targets: &str) -> BTreeMap<bool, &str> {
    let debians = targets.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let ours = words.next() == Some("Debian") && words.next() == Some("main");
        let (release, uri) = (words.next()?, words.next()?);
        ours.then_some((release.ends_with("-security"), uri))
    });
    debians.collect()
}

/// A list of sources for [`SUITES`] and [`SECURITY`], from what the machine's own come from.
fn of_suites(targets: &str) -> Result<String> {
    let mut list = String::new();
    let places = places(targets);
    for (security, suites) in [(false, &SUITES[..]), (true, &SECURITY[..])] {
        let uri = places.get(&security).context(NO_SOURCES)?;
        for suite in suites {
            writeln!(
                list,
                "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {uri} {suite} main"
            )?;
        }
    }
    Ok(list)
}

/// A kernel for virtual machines, and not what depends on the newest of them.
fn is_cloud_kernel(package: &str) -> bool {
    package.strip_prefix("linux-image-").is_some_and(|rest| {
        let flavour = rest.trim_end_matches("-unsigned");
        let version = flavour.strip_suffix("-cloud-amd64");
        version.is_some_and(|it| it.contains('+') || it.contains(".0-"))
    })
}

/// A line of `apt-cache madison`: package, version and source.
fn candidate(line: &str) -> Option<Candidate> {
    let mut columns = line.split('|').map(str::trim);
    let (package, revision) = (columns.next()?, columns.next()?);
    let (version, build) = revision.split_once('-')?;
    let build: String = build.chars().take_while(char::is_ascii_digit).collect();
    Some(Candidate {
        version: numbers(version)?,
        build: build.parse().ok()?,
        revision: revision.to_owned(),
        package: package.to_owned(),
    })
}

fn numbers(version: &str) -> Option<Vec<u64>> {
    version.split('.').map(|it| it.parse().ok()).collect()
}

fn choose<'a>(candidates: &'a [Candidate], wanted: &str) -> Result<&'a Candidate> {
    let version = numbers(wanted.split('+').next().unwrap_or(wanted));
    candidates
        .iter()
        .filter(|it| match &version {
            Some(version) => it.version.starts_with(version),
            None => it.package == wanted,
        })
        // Of one build, the signed one, whose name is the shorter.
        .max_by_key(|it| (&it.version, it.build, Reverse(it.package.len())))
        .with_context(|| {
            let mut versions: Vec<&Vec<u64>> = candidates.iter().map(|it| &it.version).collect();
            versions.sort();
            versions.dedup();
            let versions: Vec<String> = versions
                .iter()
                .map(|it| it.iter().map(u64::to_string).collect::<Vec<_>>().join("."))
                .collect();
            format!(
                "no package of {wanted:?}; there are {}",
                versions.join(", ")
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADISON: &str = "
linux-image-5.10.0-32-cloud-amd64 | 5.10.223-1 | somewhere bullseye/main amd64 Packages
linux-image-6.12.9+deb12-cloud-amd64 | 6.12.9-1~bpo12+1 | somewhere backports/main amd64 Packages
linux-image-6.12.43+deb12-cloud-amd64-unsigned | 6.12.43-1~bpo12+1 | elsewhere
linux-image-6.12.43+deb12-cloud-amd64 | 6.12.43-1~bpo12+1 | elsewhere
linux-image-6.1.0-56-cloud-amd64 | 6.1.192-2 | elsewhere
linux-image-6.1.0-55-cloud-amd64 | 6.1.192-1 | elsewhere
";

    fn chosen(wanted: &str) -> Result<String> {
        let candidates: Vec<Candidate> = MADISON.lines().filter_map(candidate).collect();
        assert_eq!(candidates.len(), 6);
        choose(&candidates, wanted).map(|it| it.package.clone())
    }

    #[test]
    fn the_newest_that_fits_is_chosen_and_the_signed_one() {
        for (wanted, package) in [
            ("5.10", "linux-image-5.10.0-32-cloud-amd64"),
            ("6.12", "linux-image-6.12.43+deb12-cloud-amd64"),
            ("6.12.9", "linux-image-6.12.9+deb12-cloud-amd64"),
            ("6.12.43+deb12", "linux-image-6.12.43+deb12-cloud-amd64"),
            ("6.1", "linux-image-6.1.0-56-cloud-amd64"),
            (
                "linux-image-6.12.43+deb12-cloud-amd64-unsigned",
                "linux-image-6.12.43+deb12-cloud-amd64-unsigned",
            ),
        ] {
            assert_eq!(chosen(wanted).expect(wanted), package);
        }
    }

    #[test]
    fn what_cannot_be_had_is_answered_with_what_can() {
        let error = chosen("6.6").expect_err("no 6.6").to_string();
        assert!(
            error.ends_with("5.10.223, 6.1.192, 6.12.9, 6.12.43"),
            "{error}"
        );
    }

    #[test]
    fn kernels_for_virtual_machines_are_told_from_the_rest() {
        for (package, is) in [
            ("linux-image-5.10.0-32-cloud-amd64", true),
            ("linux-image-6.12.43+deb12-cloud-amd64-unsigned", true),
            ("linux-image-6.12-cloud-amd64", false),
            ("linux-image-cloud-amd64", false),
            ("linux-image-6.1.0-56-cloud-amd64-dbg", false),
            ("linux-image-6.1.0-56-amd64", false),
        ] {
            assert_eq!(is_cloud_kernel(package), is, "{package}");
        }
    }

    #[test]
    fn places_come_from_the_machines_own_sources() {
        let list = of_suites(
            "Debian main bookworm http://one/debian/ \n\
             Debian main bookworm-security http://one/security/ \n\
             Other main bookworm http://other/ \n",
        )
        .expect("a list");
        assert_eq!(list.lines().count(), SUITES.len() + SECURITY.len());
        assert!(list.contains("http://one/debian/ bullseye main\n"));
        assert!(list.contains("http://one/security/ bookworm-security main\n"));
        assert!(!list.contains("other"));
        assert!(of_suites("Debian main bookworm http://one/debian/").is_err());
    }
}
