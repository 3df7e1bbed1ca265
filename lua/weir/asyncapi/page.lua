--- The page of a document: one file without anything from elsewhere, fed by `/asyncapi`.
-- @module weir.asyncapi.page

return [==[
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>AsyncAPI</title>
<style>
:root { color-scheme: light dark; --line: #8884; --soft: #777; --accent: #2f6fde; --good: #2a8a4a; --bad: #c8372d; }
@media (prefers-color-scheme: dark) { :root { --soft: #999; --accent: #78a9ff; --good: #4cc274; --bad: #ff6b5e; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 980px; padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: .8rem; letter-spacing: .06em; text-transform: uppercase; color: var(--soft); margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
.soft { color: var(--soft); }
.good { color: var(--good); }
.bad { color: var(--bad); }
code, pre, textarea, input { font: 13px/1.5 ui-monospace, monospace; }
details.operation { border: 1px solid var(--line); border-radius: .5rem; margin: .5rem 0; padding: 0 .9rem; }
details.operation > summary { cursor: pointer; padding: .6rem 0; overflow-wrap: anywhere; }
.body { padding-bottom: .9rem; }
.action { display: inline-block; min-width: 4.5rem; color: var(--accent); font-weight: 600; }
.description { white-space: pre-line; }
ul.schema { list-style: none; margin: 0; padding-left: 1rem; border-left: 1px solid var(--line); }
form { border-top: 1px solid var(--line); margin-top: 1rem; padding-top: .5rem; }
textarea { width: 100%; min-height: 7rem; }
label { display: block; margin: .4rem 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .5rem 0; }
table { border-collapse: collapse; } td { padding: .1rem 1rem .1rem 0; vertical-align: top; }
</style>
</head>
<body>
<header id="head"><h1>AsyncAPI</h1></header>
<main id="main"><p class="soft" role="status">loading</p></main>
<script>
"use strict";
let api;

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function add(parent, ...children) {
  for (const child of children) if (child) parent.append(child);
  return parent;
}

// What a reference means; bounded, since documents may lead in circles.
function resolve(value) {
  for (let i = 0; i < 32 && value && typeof value === "object" && typeof value.$ref === "string"; i++) {
    if (!value.$ref.startsWith("#/")) return {};
    value = value.$ref.slice(2).split("/").reduce((at, key) =>
      at && at[decodeURIComponent(key).replace(/~1/g, "/").replace(/~0/g, "~")], api);
  }
  return value;
}

const keyOf = (reference) => reference.$ref.split("/").pop();

// --- schemas -----------------------------------------------------------------

function limits(schema) {
  const words = [];
  for (const key of ["format", "pattern", "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf",
    "minLength", "maxLength", "minItems", "maxItems", "uniqueItems"])
    if (schema[key] !== undefined) words.push(key + " " + schema[key]);
  if (schema.const !== undefined) words.push("= " + JSON.stringify(schema.const));
  if (Array.isArray(schema.enum)) words.push("one of " + schema.enum.map((each) => JSON.stringify(each)).join(", "));
  return words.join(", ");
}

function typeOf(schema) {
  if (schema.type) return [].concat(schema.type).join(" or ");
  const words = { anyOf: "any of", oneOf: "one of", allOf: "all of" };
  for (const key of Object.keys(words)) if (schema[key]) return words[key];
  return "anything";
}

// `seen` are the schemas that this one is in, and how many rows there may be still.
function schemaRow(label, given, required, seen) {
  const schema = resolve(given);
  const row = element("li");
  if (label) add(row, element("code", label), element("span", required ? " " : "? ", "soft"));
  if (typeof schema !== "object" || !schema) return add(row, element("span", String(schema), "soft"));
  const again = seen.open.has(schema);
  const words = [schema.title, typeOf(schema), limits(schema), again && "as above"];
  add(row, element("span", words.filter(Boolean).join(" · "), "soft"));
  if (again) return row;
  if (schema.description) add(row, element("div", schema.description, "description"));
  seen.open.add(schema);
  add(row, schemaParts(schema, seen));
  seen.open.delete(schema);
  return row;
}

function schemaParts(schema, seen) {
  const list = element("ul", null, "schema");
  const part = (label, value, needed) => {
    if (--seen.left > 0) list.append(schemaRow(label, value, needed, seen));
    else if (seen.left === 0) list.append(element("li", "and more: see the document", "soft"));
  };
  const required = new Set(schema.required || []);
  for (const [key, value] of Object.entries(schema.properties || {})) part(key, value, required.has(key));
  for (const [i, value] of [].concat(schema.items === undefined ? [] : schema.items).entries())
    part(Array.isArray(schema.items) ? "[" + i + "]" : "[]", value, true);
  for (const key of ["allOf", "anyOf", "oneOf"]) for (const value of schema[key] || []) part("", value, true);
  return list.children.length ? list : null;
}

const schemaView = (label, schema) => schemaRow(label, schema, true, { open: new Set(), left: 1000 });

// A value that fits the schema, as far as a form can guess one; `left` bounds what there is in it.
function sample(given, depth = 0, left = { count: 500 }) {
  const schema = resolve(given);
  if (!schema || typeof schema !== "object" || depth > 6 || --left.count < 0) return null;
  if (Array.isArray(schema.examples) && schema.examples.length) return schema.examples[0];
  for (const key of ["const", "default"]) if (schema[key] !== undefined) return schema[key];
  if (Array.isArray(schema.enum)) return schema.enum[0];
  const parts = schema.allOf || (schema.anyOf || schema.oneOf || []).slice(0, 1);
  const type = [].concat(schema.type || (schema.properties ? "object" : []))[0];
  if (!type && parts.length) return parts.map((each) => sample(each, depth + 1, left)).pop();
  if (type === "object") {
    const value = {};
    for (const part of schema.allOf || []) Object.assign(value, sample(part, depth + 1, left));
    for (const [key, each] of Object.entries(schema.properties || {}))
      if ((schema.required || []).includes(key) || depth < 1) value[key] = sample(each, depth + 1, left);
    return value;
  }
  if (type === "array") return schema.minItems ? [sample([].concat(schema.items)[0], depth + 1, left)] : [];
  if (type === "integer" || type === "number") return schema.minimum ?? (schema.exclusiveMinimum ?? -1) + 1;
  if (type === "string" && schema.format === "date-time") return new Date(0).toISOString();
  if (type === "string") return "x".repeat(Math.min(schema.minLength || 4, 1000));
  return type === "boolean" ? true : null;
}

// The schemas of the headers that are not in every message.
function ownHeaders(message) {
  const headers = message.headers;
  if (!headers || headers.$ref) return [];
  const parts = (headers.allOf || []).slice(1);
  return Object.keys(headers.properties || {}).length ? [...parts, { ...headers, allOf: undefined }] : parts;
}

function messageView(reference) {
  const message = resolve(reference) || {};
  const view = element("div");
  add(view, element("h3", message.title || message.name || keyOf(reference)));
  if (message.contentType) add(view, element("div", message.contentType, "soft"));
  if (message.description) add(view, element("div", message.description, "description"));
  const list = element("ul", null, "schema");
  if (message.payload !== undefined) list.append(schemaView("payload", message.payload));
  else list.append(add(element("li"), element("span", "no schema", "soft")));
  for (const headers of ownHeaders(message)) list.append(schemaView("headers", headers));
  return add(view, list);
}

// --- sending -----------------------------------------------------------------

function input(label, value) {
  const field = element("input");
  field.value = value || "";
  return { field, view: add(element("label", label + " "), field) };
}

function tryIt(operation, channel, key) {
  const form = element("form");
  form.id = "try-" + key;
  add(form, element("h3", "Try it"));
  const parameters = {};
  for (const [name, parameter] of Object.entries(channel.parameters || {})) {
    if (parameter.enum) continue;
    parameters[name] = input(name);
    form.append(parameters[name].view);
  }
  const message = resolve((operation.messages || [])[0]) || {};
  const text = element("textarea");
  text.setAttribute("aria-label", "payload");
  text.value = message.payload === undefined ? "" : JSON.stringify(sample(message.payload), null, 2);
  const headers = input("headers (JSON)", JSON.stringify(sampleHeaders(message)));
  const asks = operation.reply && operation.reply.address;
  const button = element("button", asks ? "Send and wait for the answer" : "Send");
  const result = element("pre");
  result.setAttribute("role", "status");
  add(form, text, headers.view, button, result);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const values = {};
    for (const [name, each] of Object.entries(parameters)) values[name] = each.field.value;
    send(result, button, headers.field.value, {
      operation: key, parameters: values, payload: text.value,
    });
  });
  return form;
}

function sampleHeaders(message) {
  const values = {};
  for (const part of ownHeaders(message)) {
    const headers = resolve(part) || {}, properties = headers.properties || {};
    for (const name of headers.required || []) values[name] = String(sample(properties[name]) ?? "");
  }
  return values;
}

async function send(result, button, headers, request) {
  button.disabled = true;
  result.className = "soft";
  result.textContent = "sending";
  try {
    request.headers = headers.trim() ? JSON.parse(headers) : {};
    const response = await fetch("publish", {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(request),
    });
    const answer = await response.json();
    result.className = response.ok ? "good" : "bad";
    result.textContent = !response.ok ? answer.error
      : "sent to " + answer.sent + (answer.reply === undefined ? "" : "\nanswer: " + answer.reply);
  } catch (problem) {
    result.className = "bad";
    result.textContent = String(problem.message || problem);
  }
  button.disabled = false;
}

// --- the page ----------------------------------------------------------------

function facts(rows) {
  const table = element("table");
  for (const [name, value] of rows)
    if (value !== undefined && value !== null && value !== "")
      add(table, add(element("tr"), element("td", name, "soft"), element("td", value)));
  return table.rows.length ? table : null;
}

function operationView([key, operation]) {
  const channel = resolve(operation.channel) || {};
  const view = element("details", null, "operation");
  view.id = "operation-" + key;
  const open = operation.action === "send" ? "anywhere" : "where the message says";
  const address = channel["x-weir-pattern"] || channel.address || open;
  add(view, add(element("summary"), element("span", operation.action, "action"), element("code", address),
    element("span", " " + (operation.title || operation.summary || ""), "soft")));
  // What is inside is made when it is opened: there may be thousands of operations.
  view.addEventListener("toggle", () => add(view, operationBody(key, operation, channel)), { once: true });
  return view;
}

function operationBody(key, operation, channel) {
  const body = element("div", null, "body");
  add(body, element("code", key, "soft"));
  if (operation.summary) add(body, element("p", operation.summary));
  if (operation.description) add(body, element("p", operation.description, "description"));
  const retry = operation["x-weir-retry"], dead = operation["x-weir-dead-letter"];
  add(body, facts([
    ["servers", (channel.servers || []).map(keyOf).join(", ")],
    ["address", channel.address],
    ["bindings", operation.bindings && JSON.stringify(operation.bindings)],
    ["batch", operation["x-weir-batch"] && JSON.stringify(operation["x-weir-batch"])],
    ["attempts", retry && (retry.unlimited ? "no limit" : retry.maxAttempts)],
    ["dead letters", dead && dead.address],
    ["deprecated", operation["x-weir-deprecated"] && "yes"],
  ]));
  for (const each of operation.messages || []) add(body, messageView(each));
  if (operation.reply) {
    const to = resolve(operation.reply.channel) || {};
    add(body, element("h2", "Reply"), element("code", to.address || "where the message asks for it"));
    for (const each of operation.reply.messages || []) add(body, messageView(each));
  }
  if (operation.action === "receive") add(body, tryIt(operation, channel, key));
  return body;
}

function serverView([key, server]) {
  const schemes = (server.security || []).map((each) => (resolve(each) || {}).type).join(" or ");
  return [key, [server.protocol + "://" + server.host + (server.pathname || ""), server.description, schemes]
    .filter(Boolean).join(" · ")];
}

function render() {
  const info = api.info;
  document.title = info.title + " " + info.version;
  const head = document.getElementById("head"), main = document.getElementById("main");
  head.replaceChildren();
  main.replaceChildren();
  const raw = element("a", "document");
  raw.href = "asyncapi";
  add(head, element("h1", info.title + " " + info.version));
  add(head, element("span", "AsyncAPI " + api.asyncapi + " · ", "soft"), raw);
  if (info.description) add(head, element("p", info.description, "description"));
  const license = info.license && info.license.name, contact = info.contact;
  add(head, facts([["license", license], ["contact", contact && (contact.email || contact.url || contact.name)],
    ["tags", (info.tags || []).map((each) => each.name).join(", ")]]));
  add(main, element("h2", "Servers"), facts(Object.entries(api.servers || {}).map(serverView)));
  for (const [action, title] of [["receive", "Receives"], ["send", "Sends"]]) {
    const list = Object.entries(api.operations || {}).filter(([, each]) => each.action === action);
    if (list.length) add(main, element("h2", title), ...list.map(operationView));
  }
}

fetch("asyncapi").then((response) => response.json()).then((value) => { api = value; render(); }).catch((problem) => {
  const text = "The document cannot be read: " + problem.message;
  document.getElementById("main").replaceChildren(element("p", text, "bad"));
});
</script>
</body>
</html>
]==]
