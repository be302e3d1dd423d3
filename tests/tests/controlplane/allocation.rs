//! What a Service was given stays its own, whatever becomes of the control plane and its store.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sluice_conf::message::controlplane::ServiceRow;
use sluice_conf::{FrontendKind, ServiceTable};
use sluice_tests::alone::Alone;
use sluice_tests::clock;
use sluice_tests::daemon::{self, LIMIT};
use sluice_tests::manifests::Folder;
use sluice_tests::process::Process;

/// Small, so that what is handed out twice shows soon.
const RANGES: &str = "[cluster]\nservice_networks = [\"10.96.0.0/24\", \"fd00:96::/112\"]\n";
const POOL: &str = "apiVersion: sluice.dev/v1alpha1\nkind: AddressPool\nmetadata: {name: public}\n\
    spec: {addresses: [203.0.113.0/26]}\n";
/// Services at a time.
const ALIVE: usize = 24;

fn balanced(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  type: LoadBalancer\n  \
         ipFamilyPolicy: PreferDualStack\n  ports: [{{port: 80}}]\n"
    )
}

/// What a Service has, of each kind: addresses and port.
type Given = BTreeSet<(String, IpAddr, u16)>;

fn kind(kind: FrontendKind) -> String {
    format!("{kind:?}")
}

/// What the Services of a table have.
fn given(table: &ServiceTable) -> BTreeMap<String, Given> {
    let mut all: BTreeMap<String, Given> = BTreeMap::new();
    for service in &table.services {
        let given = all.entry(service.name.name.clone()).or_default();
        let frontends = service.frontends.iter();
        given.extend(frontends.map(|f| (kind(f.kind), f.address, f.port)));
    }
    all
}

/// The same as an operator sees it.
fn shown(row: &ServiceRow) -> Given {
    let frontends = row.frontends.iter();
    frontends
        .map(|f| (kind(f.kind), f.address, f.port))
        .collect()
}

/// All that was ever shown of the Services that are there.
#[derive(Default)]
struct Memory(BTreeMap<String, Given>);

impl Memory {
    /// A Service must have what it was once shown to have, as long as its file is there, and nobody
    /// else may have it.
    fn check(&mut self, seen: &BTreeMap<String, Given>, alive: &BTreeSet<String>) -> Result<()> {
        let mut holders = BTreeMap::new();
        for (name, given) in seen {
            for each in given {
                if let Some(other) = holders.insert(each, name) {
                    bail!("{each:?} was handed out twice, to {other} and to {name}");
                }
            }
            if alive.contains(name) {
                let before = self.0.entry(name.clone()).or_insert_with(|| given.clone());
                ensure!(before == given, "{name} had {before:?} and has {given:?}");
            }
        }
        Ok(())
    }
}

/// Numbers that look as if by chance, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % end
    }
}

fn write(folder: &Folder, name: &str) -> Result<()> {
    folder.write_text(&format!("{name}.yaml"), &balanced(name))
}

/// Kills it at some moment within `span`, after which everything that it has shown is judged.
fn die(
    alone: &mut Alone,
    span: u64,
    dice: &mut Dice,
    memory: &mut Memory,
    alive: &BTreeSet<String>,
) -> Result<()> {
    clock::pause(Duration::from_millis(dice.below(span)))?;
    let rows = alone.services().unwrap_or_default();
    alone.kill()?;
    for table in alone.dataplane.unseen() {
        memory.check(&given(&table), alive)?;
    }
    let rows = rows.iter().map(|row| (row.name.clone(), shown(row)));
    let compiled = rows.filter(|(_, shown)| !shown.is_empty());
    memory.check(&compiled.collect(), alive)
}

#[test]
fn a_hundred_and_sixty_deaths_lose_no_allocation_and_hand_none_out_twice() -> Result<()> {
    let mut alone = Alone::start(RANGES, |folder| folder.write_text("pool.yaml", POOL))?;
    let (mut memory, mut dice) = (Memory::default(), Dice(7));
    let mut alive = BTreeSet::new();
    for round in 0..160 {
        if round > 0 {
            alone.restart()?;
        }
        // Names sort by age.
        for each in 0..2 {
            let name = format!("s{:04}", 2 * round + each);
            write(&alone.folder, &name)?;
            alive.insert(name);
        }
        while alive.len() > ALIVE {
            let oldest = alive.pop_first().context("a Service")?;
            memory.0.remove(&oldest);
            alone.folder.remove(&format!("{oldest}.yaml"))?;
        }
        die(&mut alone, 250, &mut dice, &mut memory, &alive)?;
    }
    ensure!(memory.0.len() > ALIVE / 2, "hardly anything was shown");
    alone.restart()?;
    let table = alone.until("all Services", |table| given(table).keys().eq(alive.iter()))?;
    memory.check(&given(&table), &alive)?;
    for (name, given) in given(&table) {
        // Two ClusterIPs, a node port and a balancer's address.
        ensure!(given.len() >= 4, "{name} has {given:?}");
    }
    let rows = alone.services()?;
    let rows = rows.iter().map(|row| (row.name.clone(), shown(row)));
    ensure!(rows.collect::<BTreeMap<_, _>>() == given(&table));
    Ok(())
}

#[test]
fn forty_deaths_of_newborn_control_planes_leave_stores_that_can_be_used() -> Result<()> {
    let mut dice = Dice(11);
    let mut alone = Alone::start(RANGES, |folder| write(folder, "s1"))?;
    let store = alone.paths.dir.join("controlplane.redb");
    let alive = BTreeSet::from(["s1".to_owned()]);
    for _ in 0..20 {
        let mut memory = Memory::default();
        die(&mut alone, 60, &mut dice, &mut memory, &alive)?;
        alone.restart()?;
        die(&mut alone, 120, &mut dice, &mut memory, &alive)?;
        alone.restart()?;
        let table = alone.until("the Service", |table| given(table).contains_key("s1"))?;
        memory.check(&given(&table), &alive)?;
        alone.kill()?;
        fs::remove_file(&store)?;
        alone.restart()?;
    }
    Ok(())
}

#[test]
fn a_restart_changes_nothing_in_whatever_order_the_files_are_found() -> Result<()> {
    let names: Vec<String> = (0..12).map(|number| format!("s{number}")).collect();
    let mut alone = Alone::start(RANGES, |folder| folder.write_text("pool.yaml", POOL))?;
    for name in names.iter().rev() {
        write(&alone.folder, name)?;
        alone.until(name, |table| {
            given(table).get(name).is_some_and(|given| given.len() >= 4)
        })?;
    }
    let before = alone.until("all", |table| given(table).len() == 12)?;
    alone.kill()?;
    // What is not written yet when it starts must not have taken the place of others.
    write(&alone.folder, "a-first")?;
    alone.restart()?;
    let after = alone.until("one more", |table| given(table).len() == 13)?;
    let mut after = given(&after);
    after.remove("a-first");
    ensure!(after == given(&before), "{after:?}");
    Ok(())
}

#[test]
fn a_file_that_is_broken_over_a_restart_finds_its_addresses_again() -> Result<()> {
    let mut alone = Alone::start(RANGES, |folder| {
        folder.write_text("pool.yaml", POOL)?;
        write(folder, "s1")
    })?;
    let full = |table: &ServiceTable, name: &str| {
        given(table).get(name).is_some_and(|given| given.len() >= 4)
    };
    let before = alone.until("s1", |table| full(table, "s1"))?;
    alone.kill()?;
    alone.folder.write_text("s1.yaml", "kind: [\n")?;
    alone.restart()?;
    for number in 2..20 {
        write(&alone.folder, &format!("s{number}"))?;
    }
    let others = alone.until("the others", |table| full(table, "s19"))?;
    // The version that an earlier process has stored is in use meanwhile.
    ensure!(
        given(&others).get("s1") == given(&before).get("s1"),
        "{others:?}"
    );
    write(&alone.folder, "s1")?;
    let after = alone.until("s1 again", |table| full(table, "s1"))?;
    ensure!(given(&after)["s1"] == given(&before)["s1"], "{after:?}");
    Ok(())
}

/// Runs it on a store that it cannot use; returns the one line that it says.
fn refused(alone: &Alone, store: &str) -> Result<String> {
    let ended = alone.second(|settings| {
        let settings = settings.replace("controlplane.sock", "second.sock");
        let settings = settings.replace(":9465", ":9466");
        let own = alone.paths.dir.join("controlplane.redb");
        settings.replace(&own.display().to_string(), store)
    })?;
    ensure!(!ended.status.success(), "it ran: {ended:?}");
    let said: Vec<&str> = ended.stderr.lines().collect();
    let errors: Vec<&&str> = said.iter().filter(|line| line.contains("store")).collect();
    ensure!(errors.len() == 1, "{said:?}");
    Ok((*errors[0]).to_owned())
}

#[test]
fn a_store_that_cannot_be_used_is_one_clear_error() -> Result<()> {
    let mut alone = Alone::start(RANGES, |folder| write(folder, "s1"))?;
    let before = alone.until("s1", |table| given(table).contains_key("s1"))?;
    let dir = alone.paths.dir.clone();
    let own = dir.join("controlplane.redb");
    let at = |name: &str| dir.join(name).display().to_string();

    let in_use = refused(&alone, &own.display().to_string())?;
    ensure!(in_use.contains("is in use by another process"), "{in_use}");
    fs::create_dir(at("folder.redb"))?;
    let folder = refused(&alone, &at("folder.redb"))?;
    ensure!(folder.contains("cannot be opened"), "{folder}");
    fs::write(at("file"), "")?;
    let below_file = refused(&alone, &at("file/store.redb"))?;
    ensure!(below_file.contains(&at("file")), "{below_file}");

    alone.kill()?;
    let good = fs::read(&own)?;
    let damaged: [(&str, Vec<u8>); 4] = [
        ("text", b"not a store\n".repeat(1000)),
        ("half", good[..good.len() / 2].to_vec()),
        ("head", [&[0; 4096][..], &good[4096..]].concat()),
        (
            "tail",
            [&good[..4096], &vec![0xff; good.len() - 4096]].concat(),
        ),
    ];
    for (name, bytes) in damaged {
        let path = at(name);
        fs::write(&path, &bytes)?;
        let said = refused(&alone, &path)?;
        ensure!(
            said.contains(&path) && said.contains("is damaged"),
            "{name}: {said}"
        );
        let again = refused(&alone, &path)?;
        ensure!(again.contains("is damaged"), "{name}, again: {again}");
    }
    alone.restart()?;
    let after = alone.until("s1", |table| table.generation > before.generation)?;
    ensure!(given(&after) == given(&before));
    Ok(())
}

/// A control plane whose store is on a file system of its own, of so many bytes.
fn on_small_disk(alone: &mut Alone, size: u32) -> Result<Process> {
    let dir = &alone.paths.dir;
    let disk = dir.join("disk");
    fs::create_dir(&disk)?;
    let settings = fs::read_to_string(dir.join("sluice-controlplane.toml"))?;
    let own = dir.join("controlplane.redb").display().to_string();
    let store = disk.join("store.redb").display().to_string();
    let file = dir.join("small.toml");
    fs::write(&file, settings.replace(&own, &store))?;
    let program = daemon::binary("sluice-controlplane")?;
    let script = format!(
        "mount -t tmpfs -o size={size} none {} && exec {} --config {}",
        disk.display(),
        program.display(),
        file.display()
    );
    let words = ["unshare", "--mount", "sh", "-c", &script];
    alone
        .namespace
        .start("small", &words, &dir.join("small.log"))
}

#[test]
fn a_full_disk_is_told_and_what_serves_goes_on_until_there_is_room() -> Result<()> {
    let mut alone = Alone::start(RANGES, |folder| write(folder, "s1"))?;
    alone.until("s1", |table| given(table).contains_key("s1"))?;
    alone.kill()?;
    alone.process = on_small_disk(&mut alone, 4 << 20)?;
    let served = alone.dataplane.count();
    clock::wait_for("s1 from the small disk", LIMIT, || {
        Ok((alone.dataplane.count() > served).then_some(()))
    })?;
    let before = alone.dataplane.newest().context("a table")?;
    let pid = alone.process.pid().to_string();
    let filler = alone.paths.dir.join("disk/filler");
    let inside = |words: &[&str]| {
        let mut line = vec!["nsenter", "--mount", "--target", &pid];
        line.extend(words);
        alone.namespace.try_run(&line, LIMIT)
    };
    let to = format!("of={}", filler.display());
    let full = inside(&["dd", "if=/dev/zero", &to, "bs=4096"])?;
    ensure!(full.stderr.contains("No space left"), "{full:?}");
    // Much to store, which needs new pages.
    let long = "x".repeat(100_000);
    let noted = |name: &str| {
        let note = format!("{{name: {name}, annotations: {{note: {long}}}}}");
        balanced(name).replace(&format!("{{name: {name}}}"), &note)
    };
    let names = ["s2", "s3", "s4", "s5"];
    for name in names {
        alone
            .folder
            .write_text(&format!("{name}.yaml"), &noted(name))?;
    }
    alone.until_problems("the full disk told", |problems| {
        let told = problems.iter().filter(|p| p.contains("free some space"));
        told.count() == names.len()
    })?;
    let now = alone.dataplane.newest().context("a table")?;
    ensure!(given(&now) == given(&before), "{now:?}");
    let filler = filler.display().to_string();
    let pid = alone.process.pid().to_string();
    let free = ["nsenter", "--mount", "--target", &pid, "rm", &filler];
    alone.namespace.run(&free, LIMIT)?;
    let after = alone.until("all served", |table| given(table).len() == 5)?;
    ensure!(given(&after)["s1"] == given(&before)["s1"]);
    alone.until_problems("nothing wrong any more", |problems| {
        !problems.iter().any(|p| p.contains("stored"))
    })?;
    Ok(())
}

#[test]
fn a_store_without_permission_is_one_clear_error() -> Result<()> {
    let alone = Alone::start(RANGES, |_| Ok(()))?;
    let dir = &alone.paths.dir;
    let mine = dir.join("mine");
    fs::create_dir(&mine)?;
    fs::write(mine.join("store.redb"), "")?;
    let settings = fs::read_to_string(dir.join("sluice-controlplane.toml"))?;
    let own = dir.join("controlplane.redb").display().to_string();
    let store = mine.join("store.redb").display().to_string();
    let settings = settings.replace(&own, &store).replace(":9465", ":9466");
    let settings = settings.replace("controlplane.sock", "open/second.sock");
    let open = dir.join("open");
    fs::create_dir(&open)?;
    let file = open.join("settings.toml");
    fs::write(&file, settings)?;
    let (dir, open, mine) = (dir.display(), open.display(), mine.display());
    let program = daemon::binary("sluice-controlplane")?;
    // Without the capabilities of root, and before it opens what only root may.
    let script = format!(
        "chmod 755 {dir} && chown 65534 {open} && chmod 700 {mine} && exec setpriv --reuid 65534 \
         --regid 65534 --clear-groups --bounding-set=-all --inh-caps=-all {} --config {}",
        program.display(),
        file.display()
    );
    let ended = alone.namespace.try_run(&["sh", "-c", &script], LIMIT)?;
    ensure!(!ended.status.success());
    let lines: Vec<&str> = ended.stderr.lines().collect();
    let told: Vec<&&str> = lines.iter().filter(|line| line.contains(&store)).collect();
    ensure!(told.len() == 1, "{lines:?}");
    ensure!(
        told[0].to_lowercase().contains("permission denied"),
        "{told:?}"
    );
    Ok(())
}
