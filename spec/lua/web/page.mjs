// Opens the live page of an application in headless Chromium, waits until it shows rates, and writes what it shows as
// JSON.
//
//   node page.mjs CHROMIUM URL DIRECTORY [SCREENSHOT]
//
// Speaks the DevTools protocol through a pipe; DIRECTORY is an empty one, for the browser's profile. It writes "shown" when
// the page shows rates. The line "gone" on the standard input says that the application is, which the page must then show
// ("lost"), and another that it is back; any other is the end.
// POINTS in the environment is how many seconds of rates to wait for, for the picture in docs/; with DARK=1, a
// WIDTH or a HEIGHT the picture is of that.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";

const [chromium, url, directory, screenshot] = process.argv.slice(2);
const SECONDS = 60, HEIGHT = Number(process.env.HEIGHT || 1080);
const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync", `--window-size=1240,${HEIGHT}`,
  "--remote-debugging-pipe", `--user-data-dir=${directory}`, "about:blank"];
// With a group of its own: all of its processes write to the directory, and are ended together.
const browser = spawn(chromium, FLAGS, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"], detached: true });
setTimeout(() => end(new Error(`not done within ${SECONDS} s`)), SECONDS * 1000);
browser.on("exit", () => end(new Error("the browser ended")));

const waiting = new Map(), problems = [];
let serial = 0, session, rest = "";

function end(problem) {
  if (problem) process.stderr.write(`${problem.stack || problem}\n`);
  browser.removeAllListeners("exit");
  try { process.kill(-browser.pid, "SIGKILL"); } catch { /* it has ended */ }
  process.exit(problem ? 1 : 0);
}

browser.stdio[4].setEncoding("utf8").on("data", (data) => {
  const parts = (rest + data).split("\0");
  rest = parts.pop();
  for (const message of parts.map((part) => JSON.parse(part))) {
    if (message.method === "Runtime.exceptionThrown") problems.push(message.params.exceptionDetails.text);
    if (message.method === "Log.entryAdded" && message.params.entry.level === "error") {
      problems.push(message.params.entry.text);
    }
    const asked = waiting.get(message.id);
    waiting.delete(message.id);
    if (asked && message.error) asked.reject(new Error(message.error.message));
    else if (asked) asked.resolve(message.result);
  }
});

function call(method, params = {}) {
  const id = ++serial;
  browser.stdio[3].write(JSON.stringify({ id, method, params, sessionId: session }) + "\0");
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

async function evaluate(expression) {
  const { result, exceptionDetails } = await call("Runtime.evaluate",
    { expression, awaitPromise: true, returnByValue: true });
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description || exceptionDetails.text);
  return result.value;
}

// Waits until an expression is something.
const until = (expression) => evaluate(`new Promise((done) => {
  const look = () => { const value = ${expression}; value ? done(value) : setTimeout(look, 20); };
  look();
})`);

const look = (width, value) => Promise.all([
  call("Emulation.setDeviceMetricsOverride", { width, height: HEIGHT, deviceScaleFactor: 1, mobile: width < 600 }),
  call("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value }] }),
]);

try {
  const { targetId } = await call("Target.createTarget", { url: "about:blank" });
  session = (await call("Target.attachToTarget", { targetId, flatten: true })).sessionId;
  await Promise.all([call("Runtime.enable"), call("Log.enable"), call("Page.enable")]);
  await call("Page.navigate", { url });
  const points = Number(process.env.POINTS || 3);
  await until(`(document.querySelector("#subscriptions polyline")?.getAttribute("points") || "").split(" ").length >= ${points}`);
  const shown = await evaluate(`({
    title: document.title,
    app: document.getElementById("app").textContent,
    state: document.getElementById("state").textContent,
    brokers: document.getElementById("brokers").textContent.trim(),
    heads: [...document.querySelectorAll("#subscriptions th")].map((each) => each.textContent),
    rows: [...document.querySelectorAll("#subscriptions tbody tr")].map((row) =>
      [...row.cells].map((cell) => cell.innerText.trim())),
    published: [...document.querySelectorAll("#published tbody tr")].map((row) => row.cells[0].innerText),
    injected: document.querySelectorAll("b#injected").length,
  })`);
  shown.views = [];
  for (const [width, scheme] of [[1240, "light"], [1240, "dark"], [360, "light"]]) {
    await look(width, scheme);
    shown.views.push(await evaluate(`({
      width: innerWidth,
      wide: document.documentElement.scrollWidth,
      text: getComputedStyle(document.body).color,
      good: getComputedStyle(document.getElementById("state")).color,
    })`));
  }
  await look(Number(process.env.WIDTH || 1240), process.env.DARK ? "dark" : "light");
  if (screenshot) {
    const { data } = await call("Page.captureScreenshot", { format: "png" });
    writeFileSync(screenshot, Buffer.from(data, "base64"));
  }
  shown.problems = [...problems];
  const state = (text) => until(`document.getElementById("state").textContent === "${text}" && "${text}"`);
  process.stdout.write("shown\n");
  if (String(await once(process.stdin, "data")).trim() === "gone") {
    shown.after = await state("connection lost");
    process.stdout.write("lost\n");
    await once(process.stdin, "data");
    shown.again = await state("running");
  }
  process.stdout.write(JSON.stringify(shown) + "\n");
  end();
} catch (problem) {
  end(problem);
}
