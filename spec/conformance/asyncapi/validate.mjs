// Reads an AsyncAPI document from standard input, and writes what the official parser makes of it as JSON:
// { valid, problems: [{ severity, code, path, message }], channels, operations, messages }.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(0, "utf8"));
const SEVERITIES = ["error", "warning", "information", "hint"];
const problems = diagnostics.map((each) => ({
  severity: SEVERITIES[each.severity],
  code: String(each.code),
  path: each.path.join("."),
  message: each.message,
}));
const ids = (collection) => collection.all().map((each) => each.id());
process.stdout.write(
  JSON.stringify({
    valid: document !== undefined,
    problems,
    channels: document ? ids(document.channels()) : [],
    operations: document ? ids(document.operations()) : [],
    messages: document ? ids(document.allMessages()) : [],
  }),
);
