use super::*;
use crate::store::Store;
use crate::testing::{Gateway, service};

struct Past {
    dir: tempfile::TempDir,
    tables: Arc<Tables>,
    history: History,
}

impl Past {
    fn new(keep: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (tables, history) = open(&dir, keep);
        Self {
            dir,
            tables,
            history,
        }
    }

    /// As after a restart.
    fn again(self, keep: u16) -> Self {
        let Self {
            dir,
            tables,
            history,
        } = self;
        drop((tables, history));
        let (tables, history) = open(&dir, keep);
        Self {
            dir,
            tables,
            history,
        }
    }

    /// Puts a table of these addresses in force and records it.
    fn table(&self, addresses: &[&str]) -> Generation {
        self.tables.publish(table(addresses));
        self.record();
        self.tables.newest().generation
    }

    fn record(&self) {
        self.history.0.record().unwrap();
    }

    fn rows(&self) -> Vec<(u64, String, bool)> {
        let rows = self.history.0.rows().into_iter();
        rows.map(|row| (row.generation.0, row.summary, row.in_force))
            .collect()
    }

    fn frontends(&self) -> Vec<String> {
        let table = self.tables.newest().table.unwrap();
        let frontends = table.services.iter().flat_map(|s| &s.frontends);
        frontends.map(|f| f.address.to_string()).collect()
    }
}

fn open(dir: &tempfile::TempDir, keep: u16) -> (Arc<Tables>, History) {
    let store = Store::open(dir.path().join("history.redb")).unwrap();
    let tables = Arc::new(Tables::default());
    let history = History::open(
        SharedStore::from(store),
        Arc::clone(&tables),
        keep,
        Clock::start(),
    );
    (tables, history.unwrap())
}

fn table(addresses: &[&str]) -> ServiceTable {
    let mut gateway = Gateway::default();
    for (number, address) in addresses.iter().enumerate() {
        let name = format!("s{number}");
        gateway.apply(&name, &service(&name, address));
    }
    gateway.table()
}

#[test]
fn a_table_that_differs_is_recorded_once_and_told_in_a_line() {
    let past = Past::new(10);
    past.table(&["10.0.0.1"]);
    past.table(&["10.0.0.1"]);
    past.table(&["10.0.0.1", "10.0.0.2"]);
    past.table(&["10.0.0.9"]);
    let told = |text: &str| text.to_owned();
    assert_eq!(
        past.rows(),
        [
            (1, told("added default/s0"), false),
            (2, told("added default/s1"), false),
            (3, told("changed default/s0, removed default/s1"), true),
        ]
    );
}

#[test]
fn the_oldest_tables_are_forgotten_and_the_others_outlive_a_restart() {
    let past = Past::new(2);
    for address in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
        past.table(&[address]);
    }
    let numbers = |past: &Past| -> Vec<u64> { past.rows().iter().map(|row| row.0).collect() };
    assert_eq!(numbers(&past), [2, 3]);
    let past = past.again(2);
    assert_eq!(numbers(&past), [2, 3]);
    // Generations do not begin anew, and what is the same is not recorded again.
    past.table(&["10.0.0.3"]);
    assert_eq!(past.tables.newest().generation, Generation(4));
    assert_eq!(past.rows()[1], (3, "changed default/s0".to_owned(), true));
}

#[test]
fn a_generation_that_was_rolled_back_to_stays_until_it_is_released() {
    let past = Past::new(10);
    let good = past.table(&["10.0.0.1"]);
    past.table(&["10.0.0.2"]);
    let force = past.history.0.roll_back(good).unwrap();
    assert_eq!(
        (force.generation, force.pinned),
        (Generation(3), Some(good))
    );
    assert_eq!(past.frontends(), ["10.0.0.1"]);
    assert_eq!(past.tables.publish(table(&["10.0.0.7"])), None);
    assert_eq!(past.frontends(), ["10.0.0.1"]);
    assert_eq!(past.tables.newest().generation, Generation(3));
    let force = past.history.0.release().unwrap();
    assert_eq!((force.generation, force.pinned), (Generation(4), None));
    assert_eq!(past.frontends(), ["10.0.0.7"]);
    let rows = past.history.0.rows();
    assert_eq!(rows[2].rolled_back_to, Some(good));
    assert_eq!((rows[3].rolled_back_to, rows[3].in_force), (None, true));
    let nothing = past.history.0.release().unwrap_err();
    assert!(matches!(nothing, HistoryError::NotPinned), "{nothing}");
}

#[test]
fn a_pin_outlives_a_restart_and_so_does_its_release() {
    let past = Past::new(10);
    let good = past.table(&["10.0.0.1"]);
    past.table(&["10.0.0.2"]);
    past.history.0.roll_back(good).unwrap();
    let past = past.again(10);
    assert_eq!(past.tables.newest().pinned, Some(good));
    assert_eq!(past.tables.publish(table(&["10.0.0.2"])), None);
    assert_eq!(past.frontends(), ["10.0.0.1"]);
    past.history.0.release().unwrap();
    assert_eq!(past.frontends(), ["10.0.0.2"]);
    let past = past.again(10);
    assert_eq!(past.tables.newest().pinned, None);
    assert!(past.tables.newest().table.is_none());
}

#[test]
fn a_pin_that_is_released_into_the_same_table_is_forgotten_all_the_same() {
    let past = Past::new(10);
    let only = past.table(&["10.0.0.1"]);
    past.history.0.roll_back(only).unwrap();
    past.history.0.release().unwrap();
    assert_eq!(past.again(10).tables.newest().pinned, None);
}

#[test]
fn what_is_not_recorded_cannot_be_rolled_back_to() {
    let past = Past::new(10);
    past.table(&["10.0.0.1"]);
    let error = past.history.0.roll_back(Generation(9)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "generation 9 is not recorded; sluicectl history lists those that are"
    );
    assert_eq!(past.tables.newest().pinned, None);
}

#[test]
fn a_record_of_another_release_is_left_out_and_cannot_be_rolled_back_to() {
    let past = Past::new(10);
    past.table(&["10.0.0.1"]);
    past.history.0.store.lock().record(7, b"what", 10).unwrap();
    let error = past.history.0.roll_back(Generation(7)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "generation 7: it cannot be read: it is cut off"
    );
    assert_eq!(past.tables.newest().pinned, None);
    assert_eq!(past.again(10).rows().len(), 1);
}

#[test]
fn a_record_is_read_as_it_was_written_and_never_when_it_is_cut_off() {
    let table = table(&["10.0.0.1", "10.0.0.2"]);
    let header = Header {
        unix_seconds: 7,
        summary: "added default/s0".into(),
        pinned: Some(Generation(3)),
    };
    let bytes = record::write(&header, &table).unwrap();
    assert_eq!(record::header(&bytes), Ok(header));
    assert_eq!(record::table(&bytes), Ok(table));
    for length in 0..bytes.len() {
        assert_eq!(record::table(&bytes[..length]), Err(RecordError::Short));
    }
}
