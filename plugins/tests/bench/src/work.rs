//! The measured work: read about 1 KiB of JSON, change one member, take one out, add one, write it.

/// The `data` that replaces this one.
pub fn transform(data: &str) -> Result<String, serde_json::Error> {
    let mut data: serde_json::Value = serde_json::from_str(data)?;
    if let Some(members) = data.as_object_mut() {
        let text = members.get("text").and_then(|text| text.as_str()).unwrap_or_default().to_uppercase();
        members.insert("text".to_owned(), text.into());
        members.remove("sender");
        members.insert("seen".to_owned(), true.into());
    }
    serde_json::to_string(&data)
}
