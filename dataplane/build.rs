//! Compiles the XDP program `src/bpf/steer.bpf.c` to `$OUT_DIR/steer.bpf.o`, which the library
//! carries inside.

#[path = "src/bpf/compile.rs"]
mod compile;

fn main() -> std::process::ExitCode {
    compile::compile_all(&["steer"])
}
