//! Compiles the XDP program `src/bpf/steer.bpf.c` to `$OUT_DIR/steer.bpf.o`, which the library
//! carries inside.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const PROGRAM: &str = "src/bpf/steer.bpf.c";
const HEADERS: [&str; 2] = ["src/bpf/maps.h", "src/bpf/steer.h"];
const PACKAGES: &str = "on Debian: apt-get install clang llvm libbpf-dev linux-libc-dev \
     libelf-dev zlib1g-dev m4 make pkg-config gcc-multilib";

fn main() -> ExitCode {
    for watched in HEADERS.into_iter().chain([PROGRAM]) {
        println!("cargo::rerun-if-changed={watched}");
    }
    println!("cargo::rerun-if-env-changed=CLANG");
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), String> {
    let out = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set; run by cargo")?;
    let object = PathBuf::from(out).join("steer.bpf.o");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let mut command = Command::new(&clang);
    command.args(["-target", "bpf", "-O2", "-g", "-Wall", "-Wextra", "-Werror"]);
    // With -target bpf clang does not search the host's multiarch folder, where <asm/types.h> is.
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let multiarch = format!("/usr/include/{arch}-linux-gnu");
    if Path::new(&multiarch).is_dir() {
        command.arg("-idirafter").arg(multiarch);
    }
    command.arg("-c").arg(PROGRAM).arg("-o").arg(&object);
    let output = command.output().map_err(|error| {
        format!("the XDP program needs {clang} to compile ({error}); {PACKAGES}")
    })?;
    if output.status.success() {
        return Ok(());
    }
    let report = String::from_utf8_lossy(&output.stderr);
    eprintln!("{report}");
    if report.contains("file not found") {
        return Err(format!(
            "{clang} lacks headers for the XDP program; {PACKAGES}"
        ));
    }
    Err(format!(
        "{clang} cannot compile {PROGRAM}; its report stands above"
    ))
}
