//! Whatever stands in the folder: one clear error, and what served goes on serving.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_conf::ServiceTable;
use sluice_tests::alone::Alone;
use sluice_tests::clock;
use sluice_tests::manifests::Folder;

/// More than it ever needs, less than any of the files below would take.
const MEMORY: u64 = 400 << 20;

fn service(name: &str, address: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  clusterIP: {address}\n  \
         ports: [{{port: {port}}}]\n"
    )
}

fn web(port: u16) -> String {
    service("web", "10.96.0.1", port)
}

/// Services of a table and their first port.
fn ports(table: &ServiceTable) -> Vec<(String, u16)> {
    let services = table.services.iter();
    services
        .map(|service| {
            let port = service
                .frontends
                .first()
                .map_or(0, |frontend| frontend.port);
            (service.name.name.clone(), port)
        })
        .collect()
}

fn is(table: &ServiceTable, expected: &[(&str, u16)]) -> bool {
    let expected = expected
        .iter()
        .map(|(name, port)| ((*name).to_owned(), *port));
    ports(table).into_iter().eq(expected)
}

fn serving_web() -> Result<Alone> {
    let mut alone = Alone::start("", |folder| folder.write_text("web.yaml", &web(80)))?;
    alone.until("web", |table| is(table, &[("web", 80)]))?;
    Ok(alone)
}

/// Aliases of aliases of aliases.
fn bomb() -> String {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let parent = format!("*a{}, ", level - 1).repeat(10);
        text.push_str(&format!("a{level}: &a{level} [{parent}]\n"));
    }
    text
}

/// Makes something bad of that path.
type Make = fn(&Path) -> Result<()>;

fn sparse(path: &Path) -> Result<()> {
    fs::File::create(path)?
        .set_len(100 << 20)
        .map_err(Into::into)
}

fn large(path: &Path) -> Result<()> {
    fs::write(path, web(81).repeat((100 << 20) / web(81).len()))?;
    Ok(())
}

fn link_to(target: &str, path: &Path) -> Result<()> {
    symlink(target, path).map_err(Into::into)
}

/// What is bad, and what is to be said of it.
const BAD: [(&str, Make, &str); 14] = [
    (
        "bomb",
        |p| Ok(fs::write(p, bomb())?),
        "repeats too much by aliases",
    ),
    (
        "deep",
        |p| Ok(fs::write(p, "[".repeat(100_000))?),
        "nested too deep",
    ),
    (
        "deep-json",
        |p| Ok(fs::write(p, "{\"a\":".repeat(100_000))?),
        "nested too deep",
    ),
    ("empty-file-of-100-mb", sparse, "over the limit of 16 MiB"),
    ("file-of-100-mb", large, "over the limit of 16 MiB"),
    ("cycle", |p| link_to("cycle.yaml", p), "cannot be read"),
    ("dangling", |p| link_to("nowhere.yaml", p), "cannot be read"),
    (
        "folder",
        |p| Ok(fs::create_dir(p)?),
        "is not a regular file",
    ),
    (
        "link-to-folder",
        |p| link_to(".", p),
        "is not a regular file",
    ),
    (
        "zeros",
        |p| link_to("/dev/zero", p),
        "is not a regular file",
    ),
    (
        "latin",
        |p| Ok(fs::write(p, b"name: Z\xfcrich\n")?),
        "is not UTF-8",
    ),
    (
        "utf-16",
        |p| Ok(fs::write(p, b"\xff\xfek\0i\0n\0d\0")?),
        "is not UTF-8",
    ),
    (
        "program",
        |p| Ok(fs::write(p, b"\x7fELF\x02\x01\0\0")?),
        "is not text",
    ),
    (
        "prose",
        |p| Ok(fs::write(p, "Dear all,\n")?),
        "is not a Kubernetes object",
    ),
];

fn remove(path: &Path) -> Result<()> {
    let kind = fs::symlink_metadata(path)?.file_type();
    let result = if kind.is_dir() {
        fs::remove_dir(path)
    } else {
        fs::remove_file(path)
    };
    result.map_err(Into::into)
}

#[test]
fn each_bad_file_is_one_problem_and_changes_nothing_that_is_served() -> Result<()> {
    let mut alone = serving_web()?;
    let folder = alone.folder.path().to_owned();
    let served = alone.dataplane.count();
    for (name, make, expected) in BAD {
        let path = folder.join(format!("{name}.yaml"));
        make(&path).context(name)?;
        let told = alone.until_problems(name, |problems| !problems.is_empty())?;
        ensure!(told.len() == 1, "{name}: {told:?}");
        ensure!(told[0].starts_with(&format!("{name}.yaml")), "{told:?}");
        ensure!(told[0].contains(expected), "{name}: {told:?}");
        remove(&path)?;
        alone.until_problems("no problem", <[String]>::is_empty)?;
    }
    ensure!(alone.dataplane.count() == served, "the table changed");
    let peak = alone.peak_memory()?;
    ensure!(peak < MEMORY, "{peak} bytes");
    alone.folder.write_text("web.yaml", &web(81))?;
    alone.until("web again", |table| is(table, &[("web", 81)]))?;
    Ok(())
}

#[test]
fn all_bad_files_at_the_start_keep_no_good_one_from_being_served() -> Result<()> {
    let mut alone = Alone::start("", |folder| {
        for (name, make, _) in BAD {
            make(&folder.path().join(format!("{name}.yaml")))?;
        }
        folder.write_text("web.yaml", &web(80))
    })?;
    alone.until("web", |table| is(table, &[("web", 80)]))?;
    let told = alone.until_problems("a problem of each", |problems| problems.len() >= BAD.len())?;
    for (name, _, expected) in BAD {
        let own = told
            .iter()
            .filter(|p| p.starts_with(&format!("{name}.yaml")));
        let own: Vec<&String> = own.collect();
        ensure!(
            own.len() == 1 && own[0].contains(expected),
            "{name}: {told:?}"
        );
    }
    let peak = alone.peak_memory()?;
    ensure!(peak < MEMORY, "{peak} bytes");
    Ok(())
}

#[test]
fn a_name_in_two_files_is_told_at_both_and_neither_is_guessed() -> Result<()> {
    let mut alone = serving_web()?;
    alone.folder.write_text("copy.yaml", &web(81))?;
    let both = |problems: &[String]| problems.len() == 2;
    let told = alone.until_problems("both files named", both)?;
    for (file, other) in [("copy.yaml", "web.yaml"), ("web.yaml", "copy.yaml")] {
        let own = told.iter().find(|problem| problem.starts_with(file));
        let own = own.with_context(|| format!("{told:?}"))?;
        ensure!(
            own.contains("is defined in") && own.contains(other),
            "{told:?}"
        );
    }
    let newest = alone.dataplane.newest().context("a table")?;
    ensure!(
        is(&newest, &[("web", 80)]),
        "the version from before does not stay"
    );
    // Nothing tells which was first any more.
    alone.kill()?;
    alone.restart()?;
    let told = alone.until_problems("both files named", both)?;
    ensure!(
        told.iter().all(|p| p.contains("neither is used")),
        "{told:?}"
    );
    alone.folder.remove("web.yaml")?;
    alone.until("the other", |table| is(table, &[("web", 81)]))?;
    alone.until_problems("no problem", <[String]>::is_empty)?;
    Ok(())
}

#[test]
fn a_folder_that_vanishes_and_comes_back_takes_nothing_away() -> Result<()> {
    let mut alone = serving_web()?;
    let folder = alone.folder.path().to_owned();
    let away = folder.with_extension("away");
    let served = alone.dataplane.count();
    for _ in 0..3 {
        fs::rename(&folder, &away)?;
        let told = alone.until_problems("the folder missed", |problems| !problems.is_empty())?;
        ensure!(
            told.len() == 1 && told[0].contains("what it held stays in use"),
            "{told:?}"
        );
        fs::rename(&away, &folder)?;
        alone.until_problems("the folder found", <[String]>::is_empty)?;
    }
    ensure!(alone.dataplane.count() == served, "the table changed");
    fs::remove_dir_all(&folder)?;
    alone.until_problems("the folder missed", |problems| !problems.is_empty())?;
    let folder = Folder::create(folder)?;
    folder.write_text("web.yaml", &web(82))?;
    alone.until("the new folder", |table| is(table, &[("web", 82)]))?;
    alone.until_problems("the folder found", <[String]>::is_empty)?;
    Ok(())
}

/// Puts files in the way that the kubelet mounts ConfigMaps: all at once.
fn swap(folder: &Path, version: u16, files: &[(&str, String)]) -> Result<()> {
    let own = format!("..2026_{version}");
    fs::create_dir(folder.join(&own))?;
    for (name, text) in files {
        fs::write(folder.join(&own).join(name), text)?;
        let link = folder.join(name);
        if link.symlink_metadata().is_err() {
            symlink(format!("..data/{name}"), link)?;
        }
    }
    let data = folder.join("..data");
    let before = fs::read_link(&data).ok();
    symlink(&own, folder.join("..data_tmp"))?;
    fs::rename(folder.join("..data_tmp"), &data)?;
    if let Some(before) = before {
        fs::remove_dir_all(folder.join(before))?;
    }
    Ok(())
}

#[test]
fn the_files_of_a_config_map_are_never_mixed() -> Result<()> {
    let names = ["a", "b", "c", "d", "e", "f"];
    let files = |port: u16| {
        names.map(|name| {
            let address = format!("10.96.0.{}", name.as_bytes()[0]);
            (format!("{name}.yaml"), service(name, &address, port))
        })
    };
    let put = |folder: &Path, port: u16| {
        let files = files(port);
        let files: Vec<(&str, String)> = files.iter().map(|(n, t)| (&**n, t.clone())).collect();
        swap(folder, port, &files)
    };
    let mut alone = Alone::start("", |folder| {
        put(folder.path(), 1)?;
        fs::create_dir(folder.path().join("sub"))?;
        fs::write(folder.path().join("sub/web.yaml"), web(80))?;
        Ok(())
    })?;
    let whole = |table: &ServiceTable, port: u16| {
        ports(table)
            .iter()
            .map(|(name, port)| (&**name, *port))
            .eq(names.map(|n| (n, port)))
    };
    alone.until("the first version", |table| whole(table, 1))?;
    let folder = alone.folder.path().to_owned();
    for version in 2..=300 {
        put(&folder, version)?;
        clock::pause(Duration::from_millis(u64::from(version) % 7))?;
    }
    alone.until("the last version", |table| whole(table, 300))?;
    let tables = alone.dataplane.unseen();
    ensure!(tables.len() > 5, "{} tables", tables.len());
    for table in tables {
        let port = ports(&table).first().map_or(0, |(_, port)| *port);
        ensure!(whole(&table, port), "mixed: {:?}", ports(&table));
    }
    alone.until_problems("no problem", <[String]>::is_empty)?;
    Ok(())
}

#[test]
fn a_thousand_changes_a_second_are_taken_together() -> Result<()> {
    let services = 10;
    let text =
        |number: u16, port: u16| service(&format!("s{number}"), &format!("10.96.1.{number}"), port);
    let mut alone = Alone::start("", |folder| {
        (0..services).try_for_each(|n| folder.write_text(&format!("s{n}.yaml"), &text(n, 1)))
    })?;
    let all = |table: &ServiceTable, port: u16| {
        ports(table).len() == 10 && ports(table).iter().all(|(_, p)| *p == port)
    };
    alone.until("the first version", |table| all(table, 1))?;
    let (before, memory) = (alone.dataplane.count(), alone.peak_memory()?);
    let start = clock::now();
    for change in 0..5_000_u16 {
        let port = 2 + change / services;
        alone.folder.write_text(
            &format!("s{}.yaml", change % services),
            &text(change % services, port),
        )?;
        let due = Duration::from_millis(u64::from(change));
        clock::pause(due.saturating_sub(start.elapsed()))?;
    }
    alone.until("the last version", |table| all(table, 501))?;
    let pushed = alone.dataplane.count() - before;
    // Collected for 10 to 40 ms: far fewer tables than changes, and not only one at the end.
    ensure!(
        (5..=1_000).contains(&pushed),
        "{pushed} tables of 5000 changes"
    );
    let grown = alone.peak_memory()?.saturating_sub(memory);
    ensure!(grown < 64 << 20, "{grown} bytes more");
    alone.until_problems("no problem", <[String]>::is_empty)?;
    Ok(())
}

#[test]
fn ten_thousand_files_are_served_and_one_of_them_can_be_changed() -> Result<()> {
    let text = |number: u16, port: u16| {
        let address = format!("10.97.{}.{}", number / 250, 1 + number % 250);
        service(&format!("s{number:05}"), &address, port)
    };
    let mut alone = Alone::start("", |folder| {
        (0..10_000).try_for_each(|number| {
            let path = folder.path().join(format!("s{number:05}.yaml"));
            Ok(fs::write(path, text(number, 80))?)
        })
    })?;
    alone.until("all files", |table| table.services.len() == 10_000)?;
    let before = alone.dataplane.count();
    alone.folder.write_text("s07777.yaml", &text(7_777, 81))?;
    alone.until("one change", |table| {
        let changed = table
            .services
            .iter()
            .filter(|s| s.frontends.iter().any(|f| f.port == 81));
        changed.count() == 1
    })?;
    ensure!(alone.dataplane.count() == before + 1, "more than one table");
    let peak = alone.peak_memory()?;
    ensure!(peak < MEMORY, "{peak} bytes");
    Ok(())
}
