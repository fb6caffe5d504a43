// ---- link.js: what is shown <-> the part of the address after #, so that a view can be bookmarked and sent ----

import { byId } from "./elements.js";
import { VIEWS } from "./views.js";

export function writeLink(page) {
  const { device, axis } = page, parts = new URLSearchParams();
  if (page.view !== "memory") parts.set("view", page.view);
  if (device.device !== (page.head.first ?? 0)) parts.set("device", device.device);
  if (page.stream >= 0) parts.set("stream", device.streams[page.stream]);
  if (axis.kind !== "time") parts.set("axis", axis.kind);
  if (!axis.whole) { parts.set("from", Math.round(axis.from * 10) / 10); parts.set("to", Math.round(axis.to * 10) / 10); }
  if (page.moment !== null) parts.set("at", page.moment);
  if (page.mode !== page.defaultMode()) parts.set("colour", page.mode);
  if (page.searched) parts.set("find", byId("search").value);
  if (page.kept && page.kept.allocation !== undefined) parts.set("block", page.kept.allocation);
  if (document.documentElement.dataset.theme) parts.set("theme", document.documentElement.dataset.theme);
  const text = parts.toString();
  if (text === page.link) return;
  page.link = text;
  try {
    history.replaceState(null, "", `#${text}`);
  } catch { /* an embedded page without an address of its own */ }
}

export function readLink() { return new URLSearchParams(location.hash.slice(1)); }
export function linkNumber(parts, name) {
  const value = parts.has(name) ? Number(parts.get(name)) : NaN;
  return Number.isFinite(value) ? value : null;
}
export function followLink(page, parts) {
  const { device } = page, stream = device.streams.indexOf(parts.get("stream"));
  if (stream >= 0) page.setStream(stream);
  if (parts.get("axis") === "order") page.setAxis("order");
  if (parts.has("view") && Object.hasOwn(VIEWS, parts.get("view"))) page.show(parts.get("view"));
  if (page.current.modes().includes(parts.get("colour"))) page.setMode(parts.get("colour"));
  const [from, to, at, block] = ["from", "to", "at", "block"].map((name) => linkNumber(parts, name));
  if (from !== null && to > from) page.axis.show(from, to);
  if (at !== null && at >= 0 && at < device.states) page.setMoment(Math.floor(at));
  if (block !== null && block >= 0 && block < device.count) page.keep({ allocation: Math.floor(block) });
  if (parts.has("find")) { byId("search").value = parts.get("find"); page.search(parts.get("find")); }
}
