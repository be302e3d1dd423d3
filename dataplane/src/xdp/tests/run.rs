//! One run of the loaded program on one frame.

use std::os::fd::{AsFd, AsRawFd};

use crate::neighbour::Tags;
use crate::steer::Filter;
use crate::xdp::{Steering, program};

/// The loopback interface, by which test runs arrive.
const LOOPBACK: u32 = 1;
/// `BPF_PROG_TEST_RUN` of linux/bpf.h.
const TEST_RUN: libc::c_int = 10;
/// `enum xdp_action` of linux/bpf.h.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// The part of `union bpf_attr` that a test run uses.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

pub struct Program {
    pub steering: Steering,
}

impl Program {
    /// Loads the program, with an untagged interface and nothing that is ours.
    pub fn load() -> Self {
        let mut program = Self {
            steering: Steering::load().expect("tests of the XDP program need root"),
        };
        program.set_tags([0, 0]);
        program
    }

    pub fn set_tags(&mut self, tags: [u16; 2]) {
        let maps = &mut self.steering.maps;
        maps.add_interface(LOOPBACK, Tags(tags), 0).unwrap();
    }

    pub fn forget_interface(&mut self) {
        self.steering.maps.forget_interface(LOOPBACK);
    }

    pub fn set_filter(&mut self, filter: &Filter) {
        self.steering.extend(filter).unwrap();
        self.steering.shrink(filter).unwrap();
    }

    /// Whether the frame would go to a socket. There is none, so it is dropped instead.
    pub fn owns(&mut self, frame: &[u8]) -> bool {
        let program = program(&mut self.steering.ebpf).unwrap();
        let fd = program.fd().unwrap().as_fd().as_raw_fd();
        match run(fd, frame) {
            XDP_DROP => true,
            XDP_PASS => false,
            other => panic!("XDP action {other}"),
        }
    }
}

fn run(program: i32, frame: &[u8]) -> u32 {
    let mut attributes = Attributes {
        prog_fd: program as u32,
        data_size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat: 1,
        ..Attributes::default()
    };
    // SAFETY: the attributes live through the call and are as long as said; the kernel only reads
    // the frame, whose length they carry, and writes back into the attributes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            TEST_RUN,
            &raw mut attributes,
            size_of::<Attributes>(),
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    attributes.retval
}
