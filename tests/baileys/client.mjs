// A foreign client: Baileys against the simulated WhatsApp. Talks JSON lines on standard input and output.
// usage: node client.mjs HOST:PORT PHONE AUTH_FOLDER
import makeWASocket, { WA_CERT_DETAILS, useMultiFileAuthState, DisconnectReason } from 'baileys'
import pino from 'pino'
import readline from 'node:readline'

const [address, phone, folder] = process.argv.slice(2)
const say = line => process.stdout.write(JSON.stringify(line) + '\n')

// the certificate chain is checked as always, against the simulator's root key
const root = await (await fetch(`http://${address}/admin/root-key`)).text()
WA_CERT_DETAILS.PUBLIC_KEY = Buffer.from(root.trim(), 'base64')
const { state, saveCreds } = await useMultiFileAuthState(folder)
const logger = pino({ level: 'silent' })
let socket

function start() {
  socket = makeWASocket({
    auth: state,
    waWebSocketUrl: `ws://${address}/ws/chat`,
    logger,
    version: [2, 3000, 1000000000],
    getMessage: async () => undefined
  })
  socket.ev.on('creds.update', saveCreds)
  socket.ev.on('connection.update', async update => {
    if (update.qr) {
      const answer = await fetch(`http://${address}/admin/mock-phone/scan-qr?phone=${phone}`, { method: 'POST', body: update.qr })
      say({ scanned: answer.status })
    }
    if (update.connection === 'open') say({ open: socket.user })
    if (update.connection === 'close') {
      const code = update.lastDisconnect?.error?.output?.statusCode
      say({ closed: code ?? null })
      if (code !== DisconnectReason.loggedOut) start()
    }
  })
  socket.ev.on('messages.upsert', ({ messages }) => {
    for (const message of messages) {
      const text = message.message?.conversation ?? message.message?.extendedTextMessage?.text
      say({ message: { id: message.key.id, chat: message.key.remoteJid, participant: message.key.participant ?? null, fromMe: message.key.fromMe, text: text ?? null, stub: message.messageStubType ?? null } })
    }
  })
  socket.ev.on('messages.update', updates => updates.forEach(update => say({ update: { id: update.key.id, status: update.update.status ?? null } })))
}

start()
for await (const line of readline.createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  try {
    if (command.send) say({ sent: (await socket.sendMessage(command.send.to, { text: command.send.text })).key.id })
    if (command.createGroup) say({ group: (await socket.groupCreate(command.createGroup.subject, command.createGroup.members)).id })
    if (command.end) process.exit(0)
  } catch (error) {
    say({ error: String(error) })
  }
}
process.exit(0)
