//! The manual page of drop reasons, compared with the files under `docs/`.

use std::fmt::Write;
use std::path::Path;

use super::{DropReason, KernelDrop};

const REGENERATE: &str = "SLUICE_WRITE_DOCS=1 cargo test -p sluice-dataplane drop_reasons_page";

struct Entry {
    name: &'static str,
    sentence: &'static str,
    remedy: &'static str,
}

fn workers() -> impl Iterator<Item = Entry> {
    DropReason::ALL.iter().map(|reason| Entry {
        name: reason.name(),
        sentence: reason.sentence(),
        remedy: reason.remedy(),
    })
}

fn kernel() -> impl Iterator<Item = Entry> {
    KernelDrop::ALL.iter().map(|reason| Entry {
        name: reason.name(),
        sentence: reason.sentence(),
        remedy: reason.remedy(),
    })
}

fn markdown() -> String {
    let mut page = format!(
        "# Why frames are dropped\n\n\
         Every frame that Sluice drops has one of these reasons: in `sluicectl drops`, `explain`, \
         `trace` and `capture`, and in the metric `sluice_drops_total`. This page is made from the \
         code: `{REGENERATE}`.\n\n\
         ## Dropped by a worker\n"
    );
    let section = |page: &mut String, entries: &mut dyn Iterator<Item = Entry>| {
        for Entry {
            name,
            sentence,
            remedy,
        } in entries
        {
            write!(
                page,
                "\n### `{name}`\n\n{sentence}\n\n**What to do:** {remedy}\n"
            )
            .unwrap();
        }
    };
    section(&mut page, &mut workers());
    page.push_str("\n## Dropped by the kernel before a worker saw them\n");
    section(&mut page, &mut kernel());
    page
}

/// Text for roff: a line may not begin with a control character, and a hyphen is a minus.
fn roff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    match escaped.starts_with(['.', '\'']) {
        true => format!("\\&{escaped}"),
        false => escaped,
    }
}

fn man() -> String {
    let mut page = format!(
        ".\\\" Made from the code: {}\n\
         .TH SLUICE\\-DROPS 7 \"\" Sluice\n\
         .SH NAME\nsluice\\-drops \\- why Sluice drops frames\n\
         .SH DESCRIPTION\n\
         Every frame that Sluice drops has one of these reasons: in\n\
         .BR \"sluicectl drops\" ,\n.BR explain ,\n.B trace\nand\n.BR capture ,\n\
         and in the metric\n.BR sluice_drops_total .\n\
         .SH \"DROPPED BY A WORKER\"\n",
        REGENERATE
    );
    let section = |page: &mut String, entries: &mut dyn Iterator<Item = Entry>| {
        for entry in entries {
            let (sentence, remedy) = (roff(entry.sentence), roff(entry.remedy));
            write!(page, ".TP\n.B {}\n{sentence}\n.br\n{remedy}\n", entry.name).unwrap();
        }
    };
    section(&mut page, &mut workers());
    page.push_str(".SH \"DROPPED BY THE KERNEL BEFORE A WORKER SAW THEM\"\n");
    section(&mut page, &mut kernel());
    page.push_str(".SH \"SEE ALSO\"\nsluicectl drops \\-\\-explain\n");
    page
}

#[test]
fn the_drop_reasons_page_is_what_the_code_says() {
    let docs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"));
    for (file, page) in [("drop-reasons.md", markdown()), ("sluice-drops.7", man())] {
        let path = docs.join(file);
        if std::env::var_os("SLUICE_WRITE_DOCS").is_some() {
            std::fs::create_dir_all(docs).unwrap();
            std::fs::write(&path, &page).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == page,
            "docs/{file} is not what the code says; run {REGENERATE}"
        );
    }
}
