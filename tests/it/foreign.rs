//! An unmodified whatsapp-rust client (not Kero) against the simulated WhatsApp, over `wss://` with its self-signed
//! certificate: pairing, media, receipts, its queue after being offline, retry receipts, groups, stream errors.

use crate::support::{Foreign, person, simulator};
use kero_simulator::{Fault, FaultRule, Script};
use std::cell::{Cell, RefCell};
use std::time::Duration;
use wacore::proto_helpers::MessageExt;
use wacore::types::events::Event;
use wacore::types::presence::ReceiptType;

#[tokio::test(flavor = "multi_thread")]
async fn pairs_sends_media_gets_receipts_and_comes_back_to_its_queue() {
    let simulator = simulator().await;
    let a = Foreign::paired(&simulator, "491541000001").await;
    let b = Foreign::paired(&simulator, "491541000002").await;
    let (to_b, to_a) = (b.client.pn().unwrap().to_non_ad(), a.client.pn().unwrap().to_non_ad());

    let sent = a.client.send_text(to_b.clone(), "hello").await.unwrap().message_id;
    // the two come from different places, in any order
    let (acknowledged, delivered) = (Cell::new(false), Cell::new(false));
    a.wait("the server's ack and the delivery receipt", |event| {
        match event {
            Event::ServerAck(ack) if ack.id == sent => acknowledged.set(true),
            Event::Receipt(r) if r.message_ids.contains(&sent) && r.r#type == ReceiptType::Delivered => {
                delivered.set(true)
            }
            _ => {}
        }
        (acknowledged.get() && delivered.get()).then_some(())
    })
    .await;
    assert_eq!(b.wait_text("hello").await, sent);
    b.client.mark_as_read(&to_a, None, &[sent.as_str()]).await.unwrap();
    a.wait("read", |event| {
        matches!(event, Event::Receipt(r) if r.message_ids.contains(&sent) && r.r#type == ReceiptType::Read)
            .then_some(())
    })
    .await;

    // media: uploaded and downloaded over https on the same port
    let data: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
    let uploaded = a.client.upload(data.clone(), wacore::download::MediaType::Image, Default::default()).await.unwrap();
    a.client
        .send_message(to_b.clone(), whatsapp_rust::media::image_message(uploaded, Default::default()))
        .await
        .unwrap();
    let image = b.wait("the image", |event| match event {
        Event::Messages(batch) => batch.iter().find_map(|message| message.message.image_message.as_option().cloned()),
        _ => None,
    });
    assert_eq!(b.client.download(&image.await).await.unwrap(), data);

    // offline: what came meanwhile is delivered in order
    let before = simulator.stats().ik;
    simulator.inject(FaultRule::new(Fault::DropSocket).phone("491541000002"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    for n in 0..12 {
        a.client.send_text(to_b.clone(), format!("offline {n}")).await.unwrap();
    }
    let texts = RefCell::new(Vec::new());
    b.wait("twelve messages", |event| {
        if let Event::Messages(batch) = event {
            texts
                .borrow_mut()
                .extend(batch.iter().filter_map(|message| message.message.text_content().map(str::to_owned)));
        }
        (texts.borrow().len() == 12).then_some(())
    })
    .await;
    assert_eq!(texts.into_inner(), (0..12).map(|n| format!("offline {n}")).collect::<Vec<_>>());
    assert!(simulator.stats().ik > before, "it came back with the short handshake");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupted_message_is_recovered_and_groups_work() {
    let simulator = simulator().await;
    let a = Foreign::paired(&simulator, "491541000011").await;
    let b = Foreign::paired(&simulator, "491541000012").await;
    let to_b = b.client.pn().unwrap().to_non_ad();
    a.client.send_text(to_b.clone(), "warm").await.unwrap();
    b.wait_text("warm").await;
    simulator.inject(FaultRule::new(Fault::Undecryptable).phone("491541000012").count(1));
    a.client.send_text(to_b.clone(), "retry me").await.unwrap();
    b.wait("an undecryptable message", |event| matches!(event, Event::UndecryptableMessage(_)).then_some(())).await;
    b.wait_text("retry me").await;

    let group = simulator.create_group("both", &["491541000011", "491541000012"]).await.unwrap();
    let group: wacore_binary::Jid = group.parse().unwrap();
    a.client.send_text(group.clone(), "hello group").await.unwrap();
    b.wait_text("hello group").await;
    b.client.send_text(group, "hello back").await.unwrap();
    a.wait_text("hello back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_errors_reconnect_or_log_out_as_whatsapp_does() {
    let simulator = simulator().await;
    let a = Foreign::paired(&simulator, "491541000021").await;
    for code in [515, 503] {
        simulator.inject(FaultRule::new(Fault::StreamError).code(code).phone("491541000021"));
        a.wait("connected again", |event| matches!(event, Event::Connected(_)).then_some(())).await;
    }
    simulator.inject(FaultRule::new(Fault::DropSocket).phone("491541000021"));
    a.wait("connected again", |event| matches!(event, Event::Connected(_)).then_some(())).await;
    simulator.inject(FaultRule::new(Fault::DuplicateInbound).phone("491541000021").count(1));
    person(&simulator, "491541000022", Script::Silent);
    simulator.send_text("491541000022", "491541000021", "doubled").await.unwrap();
    a.wait_text("doubled").await;
    simulator.unlink("491541000021", None).await.unwrap();
    a.wait("logged out", |event| matches!(event, Event::LoggedOut(_)).then_some(())).await;
}
