//! Compiles the BPF programs of `src/bpf/` to `$OUT_DIR/*.bpf.o`, which the library carries inside.

#[path = "../dataplane/src/bpf/compile.rs"]
mod compile;

fn main() -> std::process::ExitCode {
    compile::compile_all(&["generate", "sink", "forward"])
}
