//! Sending and receiving.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn sends_acknowledged_and_receipted_and_asks_once_about_a_number() {
    let (setup, mut running) = Setup::paired().await;
    let id = send(&running, &peer(), "one").await;
    // the delivery may be told before the server's own answer
    let (mut acked, mut received) = (false, None);
    let receipt = running
        .until("ack and receipt", |event| {
            match event {
                LinkEvent::Ack { message_id, error: None, .. } if message_id == id.as_str() => acked = true,
                LinkEvent::Receipt(receipt) if receipt.ids.iter().any(|it| it == id.as_str()) => {
                    received = Some(receipt)
                }
                _ => {}
            }
            if acked { received.take() } else { None }
        })
        .await;
    assert_eq!(receipt.kind, "delivered");
    assert_eq!(receipt.chat, format!("{PEER}@s.whatsapp.net"));
    assert_eq!(receipt.from.phone.as_deref(), Some(PEER));
    assert!(receipt.from.lid.is_some());

    let before = setup.usync();
    for text in ["two", "three", "four"] {
        let id = send(&running, &peer(), text).await;
        assert_eq!(running.ack(&id).await, None);
    }
    assert_eq!(setup.usync(), before, "a send to a known number asked the server");
    let texts: Vec<_> = setup.simulator.received_texts(PEER).await.into_iter().map(|it| it.text).collect();
    assert_eq!(texts, ["one", "two", "three", "four"]);

    // also after a restart, from the device store alone
    running.link.stop().await;
    let mut running = setup.start(None).await;
    running.connected().await;
    tokio::time::sleep(Duration::from_millis(500)).await; // the login's own queries
    let before = setup.usync();
    let id = send(&running, &peer(), "five").await;
    assert_eq!(running.ack(&id).await, None);
    assert_eq!(setup.usync(), before, "a send to a number from the device store asked the server");
}

#[tokio::test(flavor = "multi_thread")]
async fn says_when_a_number_is_not_on_whatsapp_and_asks_once_a_minute() {
    let (setup, running) = Setup::paired().await;
    let absent = Address::Phone("15551230000".into());
    let before = setup.usync();
    for _ in 0..3 {
        let sent = running.link.send(&absent, &MessageId::mint(), &Link::prepare(&Content::text("x")), false).await;
        assert!(matches!(sent, Err(SendError::NotOnWhatsApp)), "{sent:?}");
    }
    assert_eq!(setup.usync(), before + 1);
    assert!(running.link.is_on_whatsapp("15551230000").await.unwrap().is_none());
    assert!(matches!(running.link.is_on_whatsapp(PEER).await.unwrap(), Some(Address::Lid(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_message_is_told_by_its_code_and_a_repeated_one_keeps_its_id() {
    let (setup, mut running) = Setup::paired().await;
    setup.simulator.inject(FaultRule::new(Fault::Nack).phone(PHONE).code(463));
    let id = send(&running, &peer(), "refused").await;
    assert_eq!(running.ack(&id).await, Some(463));
    running.link.send(&peer(), &id, &Link::prepare(&Content::text("refused")), true).await.unwrap();
    assert_eq!(running.ack(&id).await, None);
    assert_eq!(setup.simulator.ledger().iter().filter(|line| line.id == id.as_str()).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn receives_through_the_hook_once_and_again_after_a_failed_commit() {
    let (setup, mut running) = Setup::paired().await;
    setup.simulator.add_person(Person { phone: PEER.into(), name: Some("Bea".into()), script: Script::Silent });
    let id = setup.simulator.send_text(PEER, PHONE, "hello").await.unwrap();
    let event = setup.journal.wait(|event| event.data["text"] == "hello").await;
    assert_eq!(event.kind, EventKind::Message);
    assert_eq!(event.message_id.as_deref(), Some(id.as_str()));
    assert_eq!(event.order_key, format!("{PEER}@s.whatsapp.net"));
    assert_eq!(event.data["from"], format!("{PEER}@s.whatsapp.net"));
    assert_eq!(event.data["sender"]["phone"], PEER);
    assert_eq!(event.data["sender_name"], "Bea");
    assert!(event.data["sender"]["lid"].as_str().unwrap().ends_with("@lid"));

    // not acknowledged, so the server delivers it again with the next connection
    setup.journal.broken.store(true, Ordering::SeqCst);
    let id = setup.simulator.send_text(PEER, PHONE, "lost?").await.unwrap();
    let deadline = Instant::now() + SOON;
    while !setup.journal.refused.load(Ordering::SeqCst) {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.link.stop().await;
    setup.journal.broken.store(false, Ordering::SeqCst);
    running = setup.start(None).await;
    running.connected().await;
    let event = setup.journal.wait(|event| event.data["text"] == "lost?").await;
    assert_eq!(event.message_id.as_deref(), Some(id.as_str()));
    // the bus repeats what the hook has committed; the link does not
    while let Ok(event) = running.events.try_recv() {
        assert!(!matches!(&event, LinkEvent::Event(event) if event.kind == EventKind::Message), "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_scripts_answer() {
    let (setup, mut running) = Setup::paired().await;
    setup.simulator.add_person(Person { phone: PEER.into(), name: None, script: Script::Echo });
    let id = send(&running, &peer(), "marco").await;
    assert_eq!(running.ack(&id).await, None);
    running
        .until("read", |event| {
            matches!(&event, LinkEvent::Receipt(it) if it.kind == "read" && it.ids == [id.as_str()]).then_some(())
        })
        .await;
    setup.journal.wait(|event| event.data["text"].as_str().is_some_and(|text| text.contains("marco"))).await;

    let group = setup.simulator.create_group("Team", &[PEER, PHONE]).await.unwrap();
    let group = Address::parse(&group).unwrap();
    let id = send(&running, &group, "hi group").await;
    assert_eq!(running.ack(&id).await, None);
    setup.simulator.send_text(PEER, &group.jid(), "hi back").await.unwrap();
    let event = setup.journal.wait(|event| event.data["text"] == "hi back").await;
    assert_eq!(event.order_key, group.jid());
    assert_eq!((&event.data["to"], &event.data["is_group"]), (&group.jid().into(), &true.into()));
    assert_eq!(event.data["from"], format!("{PEER}@s.whatsapp.net"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecryptable_message_is_told_and_its_repetition_arrives() {
    let (setup, mut running) = Setup::paired().await;
    setup.simulator.inject(FaultRule::new(Fault::Undecryptable).phone(PHONE));
    let id = setup.simulator.send_text(PEER, PHONE, "scrambled").await.unwrap();
    let event = running
        .until("undecryptable", |event| match event {
            LinkEvent::Event(event) if event.kind == EventKind::Undecryptable => Some(event),
            _ => None,
        })
        .await;
    assert_eq!(event.data["message_id"], id);
    assert_eq!(event.data["reason"], "decryption-failed");
    setup.journal.wait(|event| event.data["text"] == "scrambled").await;
}

/// Without `TCP_NODELAY` whoever waits for each answer gets about 30 a second.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_each_answer_is_fast() {
    let (_setup, mut running) = Setup::paired().await;
    let id = send(&running, &peer(), "first").await;
    running.ack(&id).await;
    let start = Instant::now();
    for number in 0..100 {
        let id = send(&running, &peer(), &number.to_string()).await;
        assert_eq!(running.ack(&id).await, None);
    }
    let took = start.elapsed();
    println!("100 answered sends in {took:?}");
    assert!(took < Duration::from_millis(2500), "{took:?}");
}
