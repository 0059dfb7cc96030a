// The page of a console: noVNC, connected with the gateway by the token that the page carries.
import RFB from "/client/console/novnc/core/rfb.js";

const find = (id) => document.getElementById(id);
const say = (text) => { find("status").textContent = text; };
const meta = document.querySelector('meta[name="console-token"]');
const token = meta.content;
// It is good for one connection: nobody needs to find it here afterwards.
meta.remove();

const scheme = location.protocol === "https:" ? "wss" : "ws";
const url = `${scheme}://${location.host}/client/console/socket`;
// As the name of a protocol, the token stands in no URL and in no log.
const rfb = new RFB(find("screen"), url, { shared: true, wsProtocols: ["binary", `token.${token}`] });
rfb.scaleViewport = true;
rfb.background = "#1c1f24";

rfb.addEventListener("connect", () => {
  say("Connected");
  find("keys").disabled = false;
  rfb.focus();
});
rfb.addEventListener("disconnect", (event) => {
  find("keys").disabled = true;
  find("again").hidden = false;
  say(event.detail.clean ? "The console was closed" : "The connection was lost or refused");
});
rfb.addEventListener("credentialsrequired", () => {
  say("This console wants a password, which isn't supported");
  rfb.disconnect();
});
find("keys").addEventListener("click", () => { rfb.sendCtrlAltDel(); rfb.focus(); });
// A new page has a new token.
find("again").addEventListener("click", () => location.reload());
