//! Answers messages that hold a keyword. Needs the grant `send`; with `kv` it also keeps a pause per chat.

use kero_plugin::{Body, Context, Event, Failure, Message, Verdict, kv, log, send};
use serde::Deserialize;

kero_plugin::transform!(handle);

#[derive(Deserialize)]
struct Settings {
    replies: Vec<Reply>,
    /// Answer in groups too.
    #[serde(default)]
    groups: bool,
    /// Seconds in which a chat gets no second answer to the same keyword; 0 is no pause.
    #[serde(default = "an_hour")]
    pause_seconds: u32,
}

const fn an_hour() -> u32 {
    3600
}

#[derive(Deserialize)]
struct Reply {
    keyword: String,
    reply: String,
}

fn handle(event: Event, _: Context) -> Result<Verdict, Failure> {
    let Body::Message(message) = &event.body else { return Ok(Verdict::Pass) };
    let settings: Settings = kero_plugin::config()?;
    if message.from_me || (message.is_group && !settings.groups) {
        return Ok(Verdict::Pass);
    }
    let text = message.text.as_deref().unwrap_or_default();
    if let Some(found) = settings.replies.iter().find(|reply| says(text, &reply.keyword)) {
        answer(message, found, settings.pause_seconds)?;
    }
    Ok(Verdict::Pass)
}

fn answer(message: &Message, reply: &Reply, pause_seconds: u32) -> Result<(), Failure> {
    if pause_seconds > 0 {
        let key = format!("answered/{}/{}", reply.keyword, message.chat);
        if kv::get(&key)?.is_some() {
            log::debug(format!("{:?} was answered a moment ago", reply.keyword));
            return Ok(());
        }
        kv::set(&key, b"1", Some(pause_seconds))?;
    }
    match send::text(&message.chat, &reply.reply, Some(&message.id)) {
        Ok(correlation_id) => log::info(format!("answered {:?} as {correlation_id}", reply.keyword)),
        // a full quota is no reason to fail the event
        Err(send::SendError::Quota(why)) => log::warn(format!("not answered: {why}")),
        Err(other) => return Err(other.into()),
    }
    Ok(())
}

/// Whether the keyword stands in the text as a word or words, whatever the case.
fn says(text: &str, keyword: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
    };
    let (text, keyword) = (words(text), words(keyword));
    !keyword.is_empty() && text.windows(keyword.len()).any(|window| window == keyword)
}
