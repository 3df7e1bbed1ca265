// Opens the page of a document in headless Chromium, sends a message by its first form, and writes what is seen as JSON.
//
//   node page.mjs CHROMIUM URL DIRECTORY [SCREENSHOT]
//
// Talks to the browser through a pipe, in the DevTools protocol; DIRECTORY is an empty one for its profile.
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";

const [chromium, url, directory, screenshot] = process.argv.slice(2);
const SECONDS = 30;

const browser = spawn(chromium, ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1000,1400",
  "--remote-debugging-pipe", `--user-data-dir=${directory}`, "about:blank"],
{ stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
const late = setTimeout(() => fail(new Error(`not done within ${SECONDS} s`)), SECONDS * 1000);

function fail(problem) {
  process.stderr.write(`${problem.stack || problem}\n`);
  browser.kill("SIGKILL");
  process.exit(1);
}

const waiting = new Map(), problems = [];
let serial = 0, session, rest = "";

browser.stdio[4].setEncoding("utf8").on("data", (data) => {
  const parts = (rest + data).split("\0");
  rest = parts.pop();
  for (const part of parts) {
    const message = JSON.parse(part);
    if (message.method === "Runtime.exceptionThrown") problems.push(message.params.exceptionDetails.text);
    if (message.method === "Log.entryAdded" && message.params.entry.level === "error") {
      problems.push(message.params.entry.text);
    }
    const { resolve, reject } = waiting.get(message.id) || {};
    waiting.delete(message.id);
    if (message.error) reject(new Error(message.error.message));
    else if (resolve) resolve(message.result);
  }
});

function call(method, params = {}) {
  const id = ++serial;
  browser.stdio[3].write(JSON.stringify({ id, method, params, sessionId: session }) + "\0");
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

async function evaluate(expression) {
  const { result, exceptionDetails } = await call("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description || exceptionDetails.text);
  return result.value;
}

// The value of an expression once it is something; asked in each frame that the page shows.
const seen = (expression) => evaluate(`new Promise((done) => {
  const look = () => { const value = ${expression}; value ? done(value) : setTimeout(look, 10); };
  look();
})`);

try {
  const { targetId } = await call("Target.createTarget", { url: "about:blank" });
  session = (await call("Target.attachToTarget", { targetId, flatten: true })).sessionId;
  await Promise.all([call("Runtime.enable"), call("Log.enable"), call("Page.enable")]);
  await call("Page.navigate", { url });
  const first = `document.querySelector("form")`;
  const began = Date.now();
  await seen(`document.querySelector("details")`);
  const shown = Date.now() - began;
  await evaluate(`for (const each of [...document.querySelectorAll("details")].slice(0, 50)) each.open = true`);
  const title = await seen(`${first} && document.title`);
  const sample = await evaluate(`${first}.querySelector("textarea").value`);
  await evaluate(`for (const each of ${first}.querySelectorAll("label input")) if (!each.value) each.value = "eu";
    ${first}.querySelector("textarea").value = ${JSON.stringify('{"id": "a", "quantity": 3}')};
    ${first}.querySelector("button").click()`);
  const answered = await seen(`["good", "bad"].includes(${first}.querySelector("pre").className) &&
    ${first}.querySelector("pre").className + ": " + ${first}.querySelector("pre").textContent`);
  await evaluate(`${first}.querySelector("textarea").value = "{"; ${first}.querySelector("button").click()`);
  const refused = await seen(`${first}.querySelector("pre").className === "bad" && ${first}.querySelector("pre").textContent`);
  const text = await evaluate("document.body.innerText");
  const headers = await evaluate(`${first}.querySelector("label:last-of-type input").value`);
  const ran = await evaluate("globalThis.ran === true || document.querySelector('main img, main script, main b') !== null");
  if (screenshot) {
    const { data } = await call("Page.captureScreenshot", { format: "png" });
    writeFileSync(screenshot, Buffer.from(data, "base64"));
  }
  process.stdout.write(JSON.stringify({ title, sample, answered, refused, text, problems, headers, shown, ran }));
  session = undefined;
  clearTimeout(late);
  browser.on("exit", () => process.exit(0));
  await call("Browser.close");
} catch (problem) {
  fail(problem);
}
