//! A transform as the benchmarks measure it; `work.rs` is compiled into the native baseline as well.

mod work;

use kero_plugin::{Context, Event, Failure, Verdict};

kero_plugin::transform!(handle);

fn handle(event: Event, _context: Context) -> Result<Verdict, Failure> {
    Ok(Verdict::Replace(work::transform(&event.data)?))
}
