//! A private apt: finds and downloads packages of any Debian suite, kernels above all, without
//! touching this machine's own package state.
//!
//! All of its folders are below the one that it is given. It shares only two things with the
//! machine. One is the settings in `apt.conf`, a proxy for instance. The other is the mirror's
//! address: it comes from the machine's apt, so that no address is written down here.
//! `LSBUF_DEBIAN_MIRROR` overrides the address, and is needed if this machine's apt knows no Debian
//! mirror. Signatures are checked with Debian's archive keyring.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::arch::Arch;
use crate::cmd;
use crate::deb_version::Offer;
use crate::pattern;

/// The environment variable that names a mirror.
const MIRROR_VARIABLE: &str = "LSBUF_DEBIAN_MIRROR";

/// Where the archive's keys may be. Debian has changed the file name's ending.
pub(crate) const KEYRINGS: &[&str] =
    &["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// Names of Debian's releases that have an `-updates` suite. They identify Debian's mirror if no
/// package lists were downloaded.
const RELEASES: &[&str] =
    &["bullseye", "bookworm", "trixie", "forky", "duke", "oldstable", "stable", "testing"];

/// Addresses of the main archive and the security archive.
#[derive(Debug, Eq, PartialEq)]
struct Mirror {
    main: String,
    security: String,
}

/// The private package state, ready for use.
#[derive(Debug)]
pub(crate) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Sets up the state below `folder` and reads the package lists of `suites` for one
    /// architecture. A suite that cannot be read is reported and skipped.
    pub(crate) fn update(folder: &Path, arch: Arch, suites: &[String]) -> anyhow::Result<Self> {
        let mirror = find_mirror()?;
        let keyring = KEYRINGS
            .iter()
            .find(|path| Path::new(path).exists())
            .context("no Debian archive keyring: install debian-archive-keyring")?;
        for part in ["lists/partial", "cache/archives/partial", "state"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("making {}", part.display()))?;
        }
        let write = |name: &str, contents: &str| {
            let path = folder.join(name);
            fs::write(&path, contents).with_context(|| format!("writing {}", path.display()))
        };
        write("state/status", "")?;
        write("sources.list", &sources(&mirror, arch, suites, keyring))?;
        write("apt.conf", &configuration(folder, arch))?;
        let apt = Self { folder: folder.to_owned() };
        // If one suite is gone, the whole update fails although the other suites were read.
        if let Err(error) = cmd::output(apt.command("apt-get").arg("update")) {
            eprintln!("note: some package lists could not be read: {error:#}");
        }
        Ok(apt)
    }

    /// All packages in every suite whose names match one of `patterns`.
    pub(crate) fn offers(&self, patterns: &[String]) -> anyhow::Result<Vec<Offer>> {
        let names = cmd::output(self.command("apt-cache").args(["pkgnames", "linux-"]))?;
        let wanted = |name: &&str| patterns.iter().any(|pattern| pattern::capture(pattern, name).is_some());
        let names: Vec<&str> = names.lines().filter(wanted).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let table = cmd::output(self.command("apt-cache").arg("madison").args(names))?;
        Ok(table.lines().filter_map(parse_offer).collect())
    }

    /// The newest version of one package.
    pub(crate) fn newest(&self, package: &str) -> anyhow::Result<Offer> {
        let table = cmd::output(self.command("apt-cache").args(["madison", package]))?;
        table.lines().find_map(parse_offer).with_context(|| format!("no suite has a package {package}"))
    }

    /// Downloads the package of `offer` and returns its file.
    pub(crate) fn download(&self, offer: &Offer) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join("packages").join(&offer.package);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let wanted = format!("{}={}", offer.package, offer.version);
        let mut command = self.command("apt-get");
        cmd::output(command.args(["download", &wanted]).current_dir(&folder))?;
        let files = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        let is_package = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "deb");
        let file = files.flatten().map(|entry| entry.path()).find(is_package);
        file.with_context(|| format!("apt-get downloaded no file for {wanted}"))
    }

    /// Removes the downloaded packages.
    pub(crate) fn clean(&self) -> anyhow::Result<()> {
        let folder = self.folder.join("packages");
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
        }
        Ok(())
    }

    /// A command that uses the private state. `-c` is read after the machine's settings, so it
    /// overrides them.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(self.folder.join("apt.conf")).env("LC_ALL", "C");
        command
    }
}

/// Finds the mirror: in the environment, in the package lists that apt has, or in what apt would
/// download.
fn find_mirror() -> anyhow::Result<Mirror> {
    if let Ok(address) = std::env::var(MIRROR_VARIABLE) {
        return Ok(with_security(&address, None));
    }
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(REPO_URI) $(CODENAME)", "ORIGIN: Debian"]);
    let found = cmd::output(&mut targets).ok().and_then(|text| from_targets(&text));
    let found = found.or_else(|| {
        // If the lists were never downloaded, or were deleted as in container images, there are no
        // targets.
        let uris = cmd::output(Command::new("apt-get").args(["--print-uris", "update"])).ok()?;
        from_uris(&uris)
    });
    if let Some(mirror) = found {
        return Ok(mirror);
    }
    bail!(
        "apt on this machine knows no Debian mirror: set {MIRROR_VARIABLE} to the address of one, \
         or boot a kernel of your own with --image"
    )
}

/// The mirror in lines of `ADDRESS CODENAME`.
fn from_targets(text: &str) -> Option<Mirror> {
    let targets: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    let address = |security: bool| {
        let matches = |(_, codename): &&(&str, &str)| codename.ends_with("-security") == security;
        targets.iter().find(matches).map(|(address, _)| *address)
    };
    Some(with_security(address(false)?, address(true)))
}

/// The mirror in the lines `'ADDRESS/dists/SUITE/InRelease' …` that an update prints with
/// `--print-uris`.
fn from_uris(text: &str) -> Option<Mirror> {
    let quoted = text.lines().filter_map(|line| line.strip_prefix('\'')?.split('\'').next());
    let releases: Vec<(&str, &str)> =
        quoted.filter_map(|uri| uri.strip_suffix("/InRelease")?.split_once("/dists/")).collect();
    // Other repositories use the same suite names. Only Debian's mirror also has the `-updates`
    // suite.
    let is_debian = |(address, suite): &&(&str, &str)| {
        RELEASES.contains(suite)
            && releases.iter().any(|other| other.0 == *address && other.1 == format!("{suite}-updates"))
    };
    let main = releases.iter().find(is_debian)?.0;
    let security =
        releases.iter().find(|(_, suite)| suite.ends_with("-security")).map(|(address, _)| *address);
    Some(with_security(main, security))
}

/// If the address of the security archive is not known: by convention, it is next to the main one.
fn with_security(main: &str, security: Option<&str>) -> Mirror {
    let main = main.trim_end_matches('/').to_owned();
    let security =
        security.map_or_else(|| format!("{main}-security"), |it| it.trim_end_matches('/').to_owned());
    Mirror { main, security }
}

fn sources(mirror: &Mirror, arch: Arch, suites: &[String], keyring: &str) -> String {
    let arch = arch.name();
    let line = |suite: &String| {
        let address = if suite.ends_with("-security") { &mirror.security } else { &mirror.main };
        format!("deb [arch={arch} signed-by={keyring}] {address} {suite} main\n")
    };
    suites.iter().map(line).collect()
}

/// Valid-Until is not checked, because the lists of old suites are signed once and never again. The
/// hooks that container images add to `update` would change the machine's own cache, so they are
/// removed.
fn configuration(folder: &Path, arch: Arch) -> String {
    let (folder, arch) = (folder.display(), arch.name());
    format!(
        r##"#clear APT::Update;
#clear Dir::Etc::sourceparts;
APT::Architecture "{arch}";
#clear APT::Architectures;
APT::Architectures {{ "{arch}"; }};
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
Acquire::Retries "3";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{folder}/state";
Dir::State::lists "{folder}/lists";
Dir::State::status "{folder}/state/status";
Dir::Cache "{folder}/cache";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
"##
    )
}

/// Parses a line of `apt-cache madison`:
/// ` package | version | address suite/component arch Packages`.
fn parse_offer(line: &str) -> Option<Offer> {
    let mut columns = line.split('|').map(str::trim);
    let (package, version, source) = (columns.next()?, columns.next()?, columns.next()?);
    let suite = source.split(' ').nth(1)?.split('/').next()?;
    Some(Offer { package: package.into(), version: version.into(), suite: suite.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that both archives are found in the targets, and that the address of the second is
    /// derived if it is missing.
    #[test]
    fn mirror_from_targets() {
        let text = "http://m.example/debian/ bookworm\nhttp://s.example/sec/ bookworm-security\n";
        let mirror = from_targets(text).unwrap();
        assert_eq!(
            (mirror.main.as_str(), mirror.security.as_str()),
            ("http://m.example/debian", "http://s.example/sec")
        );
        let mirror = from_targets("http://m.example/debian/ sid\n").unwrap();
        assert_eq!(mirror.security, "http://m.example/debian-security");
        assert_eq!(from_targets(""), None);
    }

    /// Check that another repository with the same suite name is not taken for Debian's mirror.
    #[test]
    fn mirror_from_uris() {
        let foreign = "'http://other.example/dists/trixie/InRelease' o_InRelease 0 \n";
        let debian = "'http://m.example/debian/dists/trixie/InRelease' m_InRelease 0 \n\
                      'http://m.example/debian/dists/trixie-updates/InRelease' u_InRelease 0 \n";
        assert_eq!(from_uris(foreign), None);
        assert_eq!(from_uris(&format!("{foreign}{debian}")).unwrap().main, "http://m.example/debian");
    }

    /// Check that the suite is taken from the third column.
    #[test]
    fn madison_line() {
        let line = "linux-image-6.1.0-9-amd64 | 6.1.27-1 | http://m.example/debian-security bookworm-security/main amd64 Packages";
        let offer = parse_offer(line).unwrap();
        assert_eq!((offer.version.as_str(), offer.suite.as_str()), ("6.1.27-1", "bookworm-security"));
        assert_eq!(parse_offer("N: nothing"), None);
    }
}
