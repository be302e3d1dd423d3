//! Compiles BPF programs; part of the build scripts of this crate and of the benches.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const PACKAGES: &str = "on Debian: apt-get install clang llvm libbpf-dev linux-libc-dev \
     libelf-dev zlib1g-dev m4 make pkg-config gcc-multilib";

/// Compiles each program `src/bpf/NAME.bpf.c` of the crate that is being built to
/// `$OUT_DIR/NAME.bpf.o`. What is wrong is told to cargo.
pub fn compile_all(programs: &[&str]) -> ExitCode {
    println!("cargo::rerun-if-changed=src/bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    for program in programs {
        if let Err(message) = compile(program) {
            println!("cargo::error={message}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn compile(program: &str) -> Result<(), String> {
    let out = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set; run by cargo")?;
    let object = PathBuf::from(out).join(format!("{program}.bpf.o"));
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let mut command = Command::new(&clang);
    command.args(["-target", "bpf", "-O2", "-g", "-Wall", "-Wextra", "-Werror"]);
    // With -target bpf clang does not search the host's multiarch folder, where <asm/types.h> is.
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let multiarch = format!("/usr/include/{arch}-linux-gnu");
    if Path::new(&multiarch).is_dir() {
        command.arg("-idirafter").arg(multiarch);
    }
    let source = format!("src/bpf/{program}.bpf.c");
    command.arg("-c").arg(&source).arg("-o").arg(&object);
    let output = command
        .output()
        .map_err(|error| format!("{source} needs {clang} to compile ({error}); {PACKAGES}"))?;
    if output.status.success() {
        return Ok(());
    }
    let report = String::from_utf8_lossy(&output.stderr);
    eprintln!("{report}");
    if report.contains("file not found") {
        return Err(format!("{clang} lacks headers for {source}; {PACKAGES}"));
    }
    Err(format!(
        "{clang} cannot compile {source}, its report stands above; {PACKAGES}"
    ))
}
