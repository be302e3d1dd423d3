//! The manifests that a plan is for, as an operator names them: a file, or all manifests of a
//! folder.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sluice_conf::codec::MAX_BODY;
use sluice_conf::message::controlplane::plan::DraftFile;

use crate::source::files;
use crate::words;

/// Most bytes of all manifests of one draft; the message around them needs some room.
const MAX_BYTES: usize = MAX_BODY - (1 << 20);

/// Reads a manifest file, or those of a folder by the names that the manifest folder goes by; `-` is
/// standard input.
///
/// # Errors
/// In words: something cannot be read, or is too much.
pub fn read(path: &Path) -> Result<Vec<DraftFile>, String> {
    if path == Path::new("-") {
        return Ok(vec![input(io::stdin().lock())?]);
    }
    let files = match path.is_dir() {
        true => manifests(path)?,
        false => vec![path.to_owned()],
    };
    let mut draft = Vec::with_capacity(files.len());
    let mut bytes = 0_usize;
    for file in files {
        let content = files::read(&file).map_err(|why| format!("{}: {why}", file.display()))?;
        bytes = bytes.saturating_add(content.bytes.len());
        if bytes > MAX_BYTES {
            return Err(too_much(&path.display().to_string()));
        }
        draft.push(DraftFile {
            name: file.display().to_string(),
            bytes: content.bytes,
        });
    }
    Ok(draft)
}

fn manifests(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let name = folder.display();
    let listed = files::list(folder);
    let listed =
        listed.map_err(|error| format!("{name}: cannot be read: {}", words::plain(&error)))?;
    let manifests = listed.manifests.into_iter();
    Ok(manifests.map(|file| folder.join(file)).collect())
}

fn input(from: impl Read) -> Result<DraftFile, String> {
    let name = "standard input".to_owned();
    let mut bytes = Vec::new();
    let read = from.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("{name}: cannot be read: {}", words::plain(&error)))?;
    match bytes.len() > MAX_BYTES {
        true => Err(too_much(&name)),
        false => Ok(DraftFile { name, bytes }),
    }
}

fn too_much(name: &str) -> String {
    let limit = MAX_BYTES >> 20;
    format!("{name}: holds more than {limit} MiB of manifests")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_input_is_read_up_to_the_limit() {
        let file = input(&b"kind: Service"[..]).unwrap();
        assert_eq!(file.bytes, b"kind: Service");
        let endless = input(io::repeat(b' ')).unwrap_err();
        assert_eq!(
            endless,
            "standard input: holds more than 63 MiB of manifests"
        );
    }

    #[test]
    fn a_folder_is_read_as_the_manifest_folder_is() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.json", ".hidden.yaml", "notes.txt"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        let draft = read(dir.path()).unwrap();
        let contents: Vec<&[u8]> = draft.iter().map(|file| &file.bytes[..]).collect();
        assert_eq!(contents, [&b"a.json"[..], b"b.yaml"]);
        assert!(draft[1].name.ends_with("/b.yaml"), "{}", draft[1].name);
        let one = read(&dir.path().join("notes.txt")).unwrap();
        assert_eq!(one.len(), 1);
        let missing = read(&dir.path().join("missing.yaml")).unwrap_err();
        assert!(
            missing.contains("missing.yaml: cannot be read: "),
            "{missing}"
        );
    }
}
