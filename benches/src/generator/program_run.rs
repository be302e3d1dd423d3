//! BPF_PROG_RUN for XDP programs: once on given bytes, or again and again on live frames.
#![expect(unsafe_code, reason = "no BPF library offers this system call")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `BPF_PROG_TEST_RUN` and `BPF_F_TEST_XDP_LIVE_FRAMES` of linux/bpf.h.
const PROG_TEST_RUN: libc::c_long = 10;
const LIVE_FRAMES: u32 = 1 << 1;

/// The part of `union bpf_attr` that belongs to BPF_PROG_RUN.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    program: u32,
    verdict: u32,
    data_in_bytes: u32,
    data_out_bytes: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_in_bytes: u32,
    context_out_bytes: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    zero: u32,
}

/// `struct xdp_md` of linux/bpf.h.
#[repr(C)]
struct Context {
    data: u32,
    data_end: u32,
    data_meta: u32,
    interface: u32,
    queue: u32,
    egress: u32,
}

fn call(attributes: &mut Attributes) -> io::Result<()> {
    // SAFETY: the kernel reads and writes only `attributes`, of which it is told the size, and the
    // buffers that it names; callers keep those alive and say their true lengths.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_TEST_RUN,
            std::ptr::from_mut(attributes),
            size_of::<Attributes>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Runs `program` `u32::MAX` times on live frames that start as `frame` and seem to have come in on
/// the interface of index `interface`: what it returns XDP_TX for leaves there. Returns when that is
/// done, or with [`io::ErrorKind::Interrupted`] when the thread gets a signal.
///
/// `batch` frames are sent together. A call takes some 20 ms to begin and to end.
///
/// # Errors
/// The kernel refuses: no permission, an unknown interface, or a frame that does not fit a page.
pub fn live(program: BorrowedFd<'_>, frame: &[u8], interface: u32, batch: u32) -> io::Result<()> {
    let context = Context {
        data: 0,
        data_end: frame.len() as u32,
        data_meta: 0,
        interface,
        queue: 0,
        egress: 0,
    };
    call(&mut Attributes {
        program: program.as_raw_fd().cast_unsigned(),
        data_in_bytes: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        context_in_bytes: size_of::<Context>() as u32,
        context_in: std::ptr::from_ref(&context) as u64,
        repeat: u32::MAX,
        flags: LIVE_FRAMES,
        batch,
        ..Attributes::default()
    })
}

/// Runs `program` once on `frame`; returns its verdict and leaves in `frame` what it made of it.
///
/// # Errors
/// The kernel refuses.
pub fn once(program: BorrowedFd<'_>, frame: &mut Vec<u8>) -> io::Result<u32> {
    let given = frame.clone();
    let mut attributes = Attributes {
        program: program.as_raw_fd().cast_unsigned(),
        data_in_bytes: given.len() as u32,
        data_in: given.as_ptr() as u64,
        data_out_bytes: frame.len() as u32,
        data_out: frame.as_mut_ptr() as u64,
        repeat: 1,
        ..Attributes::default()
    };
    call(&mut attributes)?;
    frame.truncate(attributes.data_out_bytes as usize);
    Ok(attributes.verdict)
}
