use kero_plugin::{Body, Context, Event, Failure, Verdict};

kero_plugin::transform!(handle);

/// Called once for every event that plugin.toml names.
fn handle(event: Event, _context: Context) -> Result<Verdict, Failure> {
    let Body::Message(message) = &event.body else { return Ok(Verdict::Pass) };
    if message.from_me {
        return Ok(Verdict::Drop("own message".into()));
    }
    let text = message.text.as_deref().unwrap_or_default().to_lowercase();
    let Some((_, rest)) = text.split_once("order ") else { return Ok(Verdict::Pass) };
    let order: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let mut data = kero_plugin::data(&event)?;
    data["order"] = order.into();
    Ok(Verdict::data(&data))
}
