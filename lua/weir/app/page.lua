--- The live page of an application: one file without anything from elsewhere, fed by `/events`.
-- @module weir.app.page

return [==[
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>weir</title>
<style>
:root { color-scheme: light dark; --line: #8884; --soft: #888; --good: #2a8a4a; --bad: #c8372d; --warm: #b97a00;
  --accent: #2f6fde; }
@media (prefers-color-scheme: dark) { :root { --good: #4cc274; --bad: #ff6b5e; --warm: #f0b13c; --accent: #78a9ff; } }
* { box-sizing: border-box; }
body { font: 14px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1200px; padding: 1.5rem; }
header { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: baseline; }
h1 { font-size: 1.4rem; margin: 0; }
h2 { font-size: .8rem; letter-spacing: .06em; text-transform: uppercase; color: var(--soft); margin: 2rem 0 .5rem; }
.soft { color: var(--soft); }
.state { border: 1px solid currentColor; border-radius: 1rem; padding: 0 .6rem; font-size: .85rem; }
.good { color: var(--good); } .bad { color: var(--bad); } .warm { color: var(--warm); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .75rem; margin-top: 1rem; }
.tile { border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .75rem; }
.tile b { display: block; font-size: 1.3rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; white-space: nowrap; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; }
th { font-weight: 500; color: var(--soft); }
th.name, td.name { text-align: left; max-width: 22rem; overflow: hidden; text-overflow: ellipsis; }
td.name small { display: block; color: var(--soft); }
svg { display: block; width: 120px; height: 28px; margin-left: auto; }
polyline { fill: none; stroke: var(--accent); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
@media (max-width: 40rem) { body { padding: 1rem; } svg { width: 60px; } }
[hidden] { display: none; }
</style>
</head>
<body>
<header>
  <h1 id="app">weir</h1>
  <span id="state" class="state soft" role="status">connecting</span>
  <span id="brokers"></span>
  <span id="window" class="soft"></span>
  <span class="soft" style="margin-left:auto"><a href="metrics">metrics</a> · <a href="readyz">ready</a> ·
    <a href="asyncapi">AsyncAPI</a></span>
</header>
<div class="tiles" id="tiles"></div>
<section id="subscriptions" hidden><h2>Subscriptions</h2><div class="wide"><table></table></div></section>
<section id="published" hidden><h2>Published</h2><div class="wide"><table></table></div></section>
<section id="streams" hidden><h2>Streams</h2><div class="wide"><table></table></div></section>
<script>
"use strict";
const POINTS = 60, SILENCE = 5000, AGAIN = 1000;
const byId = (id) => document.getElementById(id);
const history = new Map();
let last = null, source = null, heard = 0, again = 0;

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}
function short(value) {
  if (value === undefined || value === null) return "";
  const size = Math.abs(value);
  for (const [least, unit] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]])
    if (size >= least) return (value / (unit === "k" ? 1e3 : least)).toFixed(1) + " " + unit;
  return Number.isInteger(value) ? String(value) : value.toFixed(size < 10 ? 1 : 0);
}
function bytes(value) {
  if (value === undefined) return "";
  let unit = 0;
  while (value >= 1024 && unit < 4) { value /= 1024; unit++; }
  return value.toFixed(unit ? 1 : 0) + " " + ["B", "KiB", "MiB", "GiB", "TiB"][unit];
}
function time(seconds) {
  if (seconds === undefined || seconds === null) return "";
  return seconds < 1 ? (seconds * 1000).toFixed(seconds < .01 ? 1 : 0) + " ms" : seconds.toFixed(1) + " s";
}
// What a counter grew by in a second; nothing when the program has started anew.
function growth(now, before, span) {
  if (now === undefined || before === undefined || !(span > 0) || now < before) return undefined;
  return (now - before) / span;
}
function remember(key, value, seen) {
  const points = history.get(key) || [];
  points.push(value || 0);
  if (points.length > POINTS) points.shift();
  history.set(key, points);
  seen.add(key);
  return points;
}
function spark(points) {
  const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg");
  const line = document.createElementNS(space, "polyline"), most = Math.max(...points, 1);
  svg.setAttribute("viewBox", `0 0 ${POINTS - 1} 28`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const first = POINTS - points.length;
  line.setAttribute("points", points.map((y, i) => `${first + i},${27 - 26 * y / most}`).join(" "));
  svg.append(line);
  return svg;
}
function fill(id, heads, rows) {
  const section = byId(id), table = section.querySelector("table");
  section.hidden = rows.length === 0;
  const top = element("tr");
  heads.forEach((head, i) => top.append(element("th", head, i === 0 ? "name" : "")));
  const head = element("thead"), body = element("tbody");
  head.append(top);
  for (const cells of rows) {
    const row = element("tr");
    cells.forEach((cell, i) => {
      const field = element("td", undefined, i === 0 ? "name" : "");
      if (cell instanceof Node) field.append(cell);
      else if (Array.isArray(cell)) field.append(element("span", cell[0], cell[1]));
      else field.textContent = cell;
      row.append(field);
    });
    body.append(row);
  }
  table.replaceChildren(head, body);
}
function named(name, about) {
  const made = element("span", name);
  made.append(element("small", about));
  made.title = name;
  return made;
}
const alarm = (value, kind) => [short(value || 0), value > 0 ? kind : "soft"];
// Each row of a list with what it was in the event before, and the points of its line.
function rowsOf(now, list, names, field, span, seen, make) {
  const keyOf = (row) => JSON.stringify([list, ...names.map((name) => row[name])]);
  const former = new Map((last ? last[list] : []).map((row) => [keyOf(row), row]));
  return now[list].map((row) => {
    const key = keyOf(row), before = former.get(key) || {};
    return make(row, spark(remember(key, growth(row[field], before[field], span), seen)));
  });
}
function subscription(each, line) {
  const outcomes = each.outcomes || {}, duration = each.duration || {};
  const failed = (outcomes.drop || 0) + (outcomes.dead_letter || 0);
  return [named(each.handler, `${each.destination} · ${each.broker}`), line, short(each.rate),
    short(each.consumed), short(each.in_flight), short(each.depth), short(each.lag), short(outcomes.ack || 0),
    alarm(each.retries, "warm"), alarm(failed, "bad"), alarm(each.decode_failures, "bad"),
    time(duration.p50), time(duration.p99)];
}
function published(each, line) {
  return [named(each.destination, each.broker), line, short(each.rate), short(each.published || 0),
    alarm(each.failed, "bad")];
}
function stream(each, line) {
  return [named(each.stream, each.side), line, short(each.rate), short(each.messages), short(each.queued),
    bytes(each.credit), short(each.peers), alarm(each.dropped, "bad"), alarm(each.gaps, "warm")];
}
function tiles(now, span) {
  const before = last ? last.runtime : {}, process = now.runtime;
  const sum = (list, field) => list.reduce((total, each) => total + (each[field] || 0), 0);
  const list = [
    ["messages a second", short(sum(now.subscriptions, "rate"))],
    ["in flight", short(sum(now.subscriptions, "in_flight"))],
    ["lag", short(sum(now.subscriptions, "lag"))],
    ["processor", short((growth(process.cpu, before.cpu, span) || 0) * 100) + " %"],
    ["memory", bytes(process.memory)],
    ["loop lag, p99", time(process.loop_lag && process.loop_lag.p99)],
    ["tasks", short(process.tasks)],
  ];
  byId("tiles").replaceChildren(...list.map(([name, value]) => {
    const tile = element("div", undefined, "tile");
    tile.append(element("b", value || "–"), element("span", name, "soft"));
    return tile;
  }));
}
// Said only when it changes, as screen readers read it out.
function say(text, kind) {
  const state = byId("state");
  if (state.textContent !== text) state.textContent = text;
  state.className = "state " + kind;
}
function show(now) {
  const span = last ? now.time - last.time : 0;
  document.title = `${now.app} · weir`;
  byId("app").textContent = `${now.app} ${now.version}`;
  say(now.state, now.ready ? "good" : "warm");
  byId("brokers").replaceChildren(...now.brokers.map((each) => {
    const made = element("span", `${each.name}: ${each.state} `, each.state === "up" ? "good" : "bad");
    if (each.error) made.title = each.error;
    return made;
  }));
  byId("window").textContent = now.window ? `rates, p50 and p99 of the last ${Math.round(now.window)} s` : "";
  tiles(now, span);
  const seen = new Set();
  fill("subscriptions", ["handler", "", "per second", "consumed", "in flight", "queued", "lag", "ack", "retries",
    "failed", "undecodable", "p50", "p99"],
    rowsOf(now, "subscriptions", ["broker", "handler", "destination"], "consumed", span, seen, subscription));
  fill("published", ["destination", "", "per second", "published", "failed"],
    rowsOf(now, "published", ["broker", "destination"], "published", span, seen, published));
  fill("streams", ["stream", "", "per second", "messages", "queued", "credit", "peers", "dropped", "gaps"],
    rowsOf(now, "streams", ["stream", "side"], "messages", span, seen, stream));
  for (const key of history.keys()) if (!seen.has(key)) history.delete(key);
  last = now;
}
// Browsers try again by themselves after some errors and not after others.
function lost() {
  say("connection lost", "bad");
  source.close();
  clearTimeout(again);
  again = setTimeout(connect, AGAIN);
}
function connect() {
  heard = Date.now();
  source = new EventSource("events");
  source.onmessage = (event) => { heard = Date.now(); show(JSON.parse(event.data)); };
  source.onerror = lost;
}
connect();
setInterval(() => { if (Date.now() - heard > SILENCE) { heard = Date.now(); lost(); } }, 1000);
</script>
</body>
</html>
]==]
