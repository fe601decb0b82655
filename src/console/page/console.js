// The page of a server's screen. The token in its address is used up here, when the WebSocket is open, and nowhere else: whoever
// only fetches the page, as chat platforms do for a preview, leaves it good.
import RFB from "./novnc/core/rfb.js";

const ACTIVE_EVERY_MS = 10_000;
const CLOSED_HINT = "Ask for another link with /server console.";

const element = (id) => document.getElementById(id);
const screen = element("screen");
const buttons = ["keys", "full", "end"].map(element);
const [keys, full, end] = buttons;

let rfb;
let reason;
let lastActive = Number.NEGATIVE_INFINITY;

function show(state, { status, text = "", hint = "" }) {
  document.body.dataset.state = state;
  element("status").textContent = status;
  element("reason").textContent = text;
  element("hint").textContent = hint;
  for (const button of buttons) button.disabled = state !== "connected";
}

function showEnd() {
  const text = reason ?? "The connection was lost.";
  show("ended", { status: "Ended", text, hint: text.includes("/server console") ? "" : CLOSED_HINT });
}

function connect() {
  const token = location.pathname.split("/").at(-1);
  const address = new URL("socket", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  const socket = new WebSocket(address);
  socket.addEventListener("open", () => socket.send(JSON.stringify({ token })));
  // Words come as text; the screen, as bytes, is noVNC's, which takes no notice of text.
  socket.addEventListener("message", ({ data }) => {
    if (typeof data !== "string") return;
    const message = JSON.parse(data);
    if (message.state === "ended") reason = message.reason;
    if (message.state === "open") start(socket, message);
  });
  socket.addEventListener("close", showEnd);
  addEventListener("pagehide", () => socket.close());
  for (const kind of ["keydown", "pointerdown", "pointermove", "wheel"]) {
    screen.addEventListener(kind, () => tellActive(socket), { capture: true, passive: true });
  }
}

/** At once, so that noVNC does not miss the first bytes. */
function start(socket, { server, password }) {
  element("name").textContent = server;
  document.title = `${server} – screen`;
  rfb = new RFB(screen, socket, { credentials: { password }, shared: true });
  rfb.scaleViewport = true;
  rfb.background = "#0f141b";
  rfb.addEventListener("connect", () => {
    show("connected", { status: "Connected" });
    rfb.focus();
  });
  rfb.addEventListener("securityfailure", () => {
    reason ??= "The server's screen did not accept us.";
  });
}

/** Somebody is there. What the screen shows by itself does not count. */
function tellActive(socket) {
  const now = performance.now();
  if (now - lastActive < ACTIVE_EVERY_MS || socket.readyState !== WebSocket.OPEN) return;
  lastActive = now;
  socket.send(JSON.stringify({ active: true }));
}

keys.addEventListener("click", () => {
  rfb?.sendCtrlAltDel();
  rfb?.focus();
});
full.addEventListener("click", () => {
  // A browser that does not want to stays as it is.
  const changed =
    document.fullscreenElement === null ? screen.requestFullscreen() : document.exitFullscreen();
  changed.catch(() => undefined);
  rfb?.focus();
});
end.addEventListener("click", () => {
  reason = "You have disconnected.";
  rfb?.disconnect();
});

// A browser that loads the page ahead of time must not use the link up.
if (document.prerendering) document.addEventListener("prerenderingchange", connect, { once: true });
else connect();
