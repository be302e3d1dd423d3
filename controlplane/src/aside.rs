//! Work on a thread of its own with its own loop of I/O: whoever has very many small answers to wait
//! for would otherwise be woken by another thread for each.

use std::io;
use std::thread;

use tokio::runtime;
use tokio::sync::oneshot;

/// The work goes on until this is dropped, and not after it.
#[derive(Debug)]
pub struct Aside {
    _end: oneshot::Sender<()>,
}

/// Starts `work` on a thread of this name.
///
/// # Errors
/// The thread cannot be started.
pub fn start(name: &str, work: impl Future<Output = ()> + Send + 'static) -> io::Result<Aside> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (end, ended) = oneshot::channel();
    let work = async move {
        tokio::select! {
            () = work => {}
            _ = ended => {}
        }
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || runtime.block_on(work))?;
    Ok(Aside { _end: end })
}
