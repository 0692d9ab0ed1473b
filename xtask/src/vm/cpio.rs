//! Archives that the kernel takes as an initramfs.
//!
//! The format is newc: a header of hexadecimal fields, the name and the contents, each padded to four
//! bytes (<https://elixir.bootlin.com/linux/v6.18/source/Documentation/driver-api/early-userspace/buffer-format.rst>).

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::Path,
};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTERS: u32 = 0o020_600;

/// The name that ends an archive.
const END: &str = "TRAILER!!!";

/// An archive that is being written. The directories of what is put into it are put there first.
#[derive(Debug)]
pub(super) struct Archive<W> {
    to: W,
    entries: u32,
    directories: BTreeSet<String>,
}

struct Entry<'a> {
    name: &'a str,
    mode: u32,
    device: (u32, u32),
    contents: &'a [u8],
}

impl<W: Write> Archive<W> {
    pub(super) fn new(to: W) -> Self {
        Self {
            to,
            entries: 0,
            directories: BTreeSet::new(),
        }
    }

    /// A directory, and those that it is in.
    pub(super) fn directory(&mut self, name: &str) -> io::Result<()> {
        let name = relative(name);
        self.parents(name)?;
        if self.directories.insert(name.to_owned()) {
            self.entry(&Entry {
                name,
                mode: DIRECTORY,
                device: (0, 0),
                contents: &[],
            })?;
        }
        Ok(())
    }

    /// A file that may be run.
    pub(super) fn file(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        let name = relative(name);
        self.parents(name)?;
        self.entry(&Entry {
            name,
            mode: PROGRAM,
            device: (0, 0),
            contents,
        })
    }

    /// A character device.
    pub(super) fn device(&mut self, name: &str, major: u32, minor: u32) -> io::Result<()> {
        let name = relative(name);
        self.parents(name)?;
        self.entry(&Entry {
            name,
            mode: CHARACTERS,
            device: (major, minor),
            contents: &[],
        })
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry(&Entry {
            name: END,
            mode: 0,
            device: (0, 0),
            contents: &[],
        })?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn parents(&mut self, name: &str) -> io::Result<()> {
        match Path::new(name).parent().and_then(Path::to_str) {
            None | Some("") => Ok(()),
            Some(parent) => self.directory(parent),
        }
    }

    fn entry(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let size = u32::try_from(entry.contents.len())
            .map_err(|_| io::Error::other("a file of 4 GiB or more"))?;
        // With its NUL.
        let name_size = u32::try_from(entry.name.len() + 1)
            .map_err(|_| io::Error::other("a name of 4 GiB or more"))?;
        self.entries += 1;
        let (major, minor) = entry.device;
        // Inode, mode, uid, gid, links, time, size, device of the file, device that it is, length of
        // the name, checksum.
        let fields = [
            self.entries,
            entry.mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            major,
            minor,
            name_size,
            0,
        ];
        let mut header = b"070701".to_vec();
        for field in fields {
            write!(header, "{field:08x}")?;
        }
        header.extend_from_slice(entry.name.as_bytes());
        header.push(0);
        self.padded(&header)?;
        self.padded(entry.contents)
    }

    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        let over = bytes.len().next_multiple_of(4) - bytes.len();
        self.to.write_all(&[0; 3][..over])
    }
}

fn relative(name: &str) -> &str {
    name.trim_start_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode and contents of every entry, read the way the kernel does
    /// (<https://elixir.bootlin.com/linux/v6.18/source/init/initramfs.c>).
    fn read(mut archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        while !archive.is_empty() {
            let (header, rest) = archive.split_at(110);
            assert_eq!(&header[..6], b"070701");
            let field = |index: usize| {
                let digits = &header[6 + 8 * index..][..8];
                let digits = std::str::from_utf8(digits).expect("digits");
                u32::from_str_radix(digits, 16).expect("a number")
            };
            let (size, name_size) = (field(6) as usize, field(11) as usize);
            let (name, nul) = rest[..name_size].split_at(name_size - 1);
            assert_eq!(nul, [0]);
            let contents = (110 + name_size).next_multiple_of(4);
            let end = (contents + size).next_multiple_of(4);
            entries.push((
                String::from_utf8(name.to_vec()).expect("a name"),
                field(1),
                archive[contents..contents + size].to_vec(),
            ));
            archive = &archive[end..];
        }
        entries
    }

    #[test]
    fn directories_come_first_and_once() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/bin/a", b"12345").expect("a");
        archive.file("bin/bc", b"").expect("bc");
        archive.file("/lib/x/y", b"1234").expect("y");
        archive.directory("/lib/x").expect("x");
        let names: Vec<_> = read(&archive.finish().expect("an end"))
            .into_iter()
            .map(|(name, mode, contents)| (name, mode, contents.len()))
            .collect();
        let expected = [
            ("bin", DIRECTORY, 0),
            ("bin/a", PROGRAM, 5),
            ("bin/bc", PROGRAM, 0),
            ("lib", DIRECTORY, 0),
            ("lib/x", DIRECTORY, 0),
            ("lib/x/y", PROGRAM, 4),
            (END, 0, 0),
        ];
        assert_eq!(
            names,
            expected.map(|(name, mode, size)| (name.to_owned(), mode, size))
        );
    }

    #[test]
    fn contents_of_every_length_come_back() {
        let mut archive = Archive::new(Vec::new());
        let contents: Vec<Vec<u8>> = (0_u8..9).map(|it| (0..it).collect()).collect();
        for contents in &contents {
            let name = "n".repeat(contents.len() + 1);
            archive.file(&name, contents).expect("a file");
        }
        let mut back = read(&archive.finish().expect("an end"));
        back.pop();
        let back: Vec<Vec<u8>> = back.into_iter().map(|(_, _, contents)| contents).collect();
        assert_eq!(back, contents);
    }

    #[test]
    fn a_device_has_its_numbers() {
        let mut archive = Archive::new(Vec::new());
        archive.device("/dev/console", 5, 1).expect("a device");
        let bytes = archive.finish().expect("an end");
        let text = String::from_utf8_lossy(&bytes);
        let at = text.find("dev/console").expect("the name");
        assert_eq!(&text[at - 32..at - 16], "0000000500000001");
    }
}
