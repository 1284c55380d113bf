//! One client connection: handshake, login or pairing, then stanzas until it ends.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_websockets::WebSocketStream;
use wacore_binary::{Node, marshal};
use wacore_noise::{NoiseCipher, framing};

use crate::node::attr_is;
use crate::noise::{self, Handshaken};
use crate::socket::{FrameReader, FrameWriter, frames};
use crate::world::World;
use crate::world::account::Account;
use crate::world::device::{Outbox, Outgoing};
use crate::{iq, login, pairing, presence, receipts, relay, salvage};

/// A logged-in device, as the stanza handlers see it.
#[derive(Clone)]
pub(crate) struct Caller {
    pub world: Arc<World>,
    pub account: Arc<Account>,
    pub device: u16,
    pub outbox: Outbox,
}

impl Caller {
    pub fn send(&self, stanza: Node) {
        // A failed send means that the connection is gone; its end is handled where it is read.
        let _ = self.outbox.send(Outgoing::Stanza(stanza));
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve<S>(world: Arc<World>, socket: WebSocketStream<S>) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut reader, mut writer) = frames(socket);
    let delay = world.config.hello_delay;
    let Handshaken { write, read, client_static, payload } =
        noise::respond(&world.keys, &world.counters, delay, &mut reader, &mut writer).await?;

    let connection = world.next();
    let (outbox, stanzas) = mpsc::unbounded_channel();
    world.spawn(write_stanzas(writer, write, stanzas));

    let caller = match payload.username {
        Some(user) => {
            let device = payload.device.unwrap_or(0) as u16;
            match login::accept(&world, connection, &outbox, &user.to_string(), device, &client_static) {
                Some(account) => Some(Caller { world: world.clone(), account, device, outbox: outbox.clone() }),
                None => return Ok(()),
            }
        }
        None => {
            pairing::offer(&world, connection, &outbox, client_static, payload);
            None
        }
    };

    let ended = read_stanzas(&world, &mut reader, &read, connection, &outbox, caller.as_ref()).await;
    match &caller {
        Some(caller) => login::ended(&caller.account, caller.device, connection),
        None => world.pairings.forget(connection),
    }
    let _ = outbox.send(Outgoing::Close);
    ended
}

async fn read_stanzas<S: AsyncRead + AsyncWrite + Unpin>(
    world: &Arc<World>,
    reader: &mut FrameReader<S>,
    cipher: &NoiseCipher,
    connection: u64,
    outbox: &Outbox,
    caller: Option<&Caller>,
) -> Result<()> {
    let mut counter = 0u32;
    loop {
        let mut frame = tokio::select! {
            frame = reader.next() => frame?.to_vec(),
            () = outbox.closed() => return Ok(()),
        };
        cipher.decrypt_in_place_with_counter(counter, &mut frame).map_err(|e| anyhow!("decrypt: {e}"))?;
        counter += 1;
        let stanza = match salvage::decode(wacore_binary::util::unpack(&frame)?.into_owned()) {
            Ok(stanza) => stanza,
            Err(e) => {
                tracing::warn!("a stanza {e:#}");
                continue;
            }
        };
        tracing::trace!(?stanza, "in");
        let handled = match caller {
            Some(caller) => handle(caller, &stanza).await,
            None => pairing::handle(world, connection, outbox, &stanza).await,
        };
        // A stanza we do not understand must not cost the client its connection.
        if let Err(e) = handled {
            tracing::warn!("<{}>: {e:#}", stanza.tag);
        }
    }
}

async fn handle(caller: &Caller, stanza: &Node) -> Result<()> {
    match stanza.tag.as_ref() {
        "iq" if attr_is(stanza, "type", "result") || attr_is(stanza, "type", "error") => Ok(()),
        "iq" => iq::answer(caller, stanza).await,
        "message" => relay::message(caller, stanza),
        "receipt" => receipts::receipt(caller, stanza),
        "ack" => {
            receipts::ack(caller, stanza);
            Ok(())
        }
        "presence" => presence::presence(caller, stanza),
        "chatstate" => presence::chat_state(caller, stanza),
        "ib" => {
            login::in_band(caller, stanza);
            Ok(())
        }
        "call" => relay::call(caller, stanza),
        other => {
            tracing::debug!("<{other}> is not handled");
            Ok(())
        }
    }
}

/// Encrypts and writes until the connection is closed; flushes when nothing more is waiting.
async fn write_stanzas<S: AsyncRead + AsyncWrite + Unpin>(
    mut writer: FrameWriter<S>,
    cipher: NoiseCipher,
    mut stanzas: mpsc::UnboundedReceiver<Outgoing>,
) {
    let mut counter = 0u32;
    while let Some(first) = stanzas.recv().await {
        let mut next = Some(first);
        while let Some(outgoing) = next.take() {
            let stanza = match outgoing {
                Outgoing::Stanza(stanza) => stanza,
                Outgoing::Close => {
                    let _ = writer.flush().await;
                    stanzas.close();
                    writer.close().await;
                    return;
                }
                Outgoing::Drop => return,
            };
            tracing::trace!(?stanza, "out");
            let Some(frame) = seal(&stanza, &cipher, counter) else { continue };
            counter += 1;
            if writer.feed(frame).await.is_err() {
                return;
            }
            next = stanzas.try_recv().ok();
        }
        if writer.flush().await.is_err() {
            return;
        }
    }
}

fn seal(stanza: &Node, cipher: &NoiseCipher, counter: u32) -> Option<Vec<u8>> {
    let sealed = marshal(stanza)
        .map_err(|e| anyhow!("{e}"))
        .and_then(|plain| cipher.encrypt_with_counter(counter, &plain).map_err(|e| anyhow!("{e}")))
        .and_then(|sealed| framing::encode_frame(&sealed, None));
    match sealed {
        Ok(frame) => Some(frame),
        Err(e) => {
            tracing::error!("cannot write <{}>: {e:#}", stanza.tag);
            None
        }
    }
}
