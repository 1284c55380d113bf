//! A transform as the benchmarks measure it; `work.rs` is compiled into the native baseline as well. It is a filter, too:
//! messages that begin with "pass" go by unchanged.

mod work;

use kero_plugin::{Body, Context, Event, Failure, Verdict};

kero_plugin::transform!(handle);

fn handle(event: Event, _context: Context) -> Result<Verdict, Failure> {
    if let Body::Message(message) = &event.body
        && message.text.as_deref().is_some_and(|text| text.starts_with("pass"))
    {
        return Ok(Verdict::Pass);
    }
    Ok(Verdict::Replace(work::transform(&event.data)?))
}
