// Reads a JSON list of AsyncAPI documents, each a text, from standard input, and writes what the official parser makes of
// each: { valid, problems: [{ severity, code, path, message }], channels, operations }.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const SEVERITIES = ["error", "warning", "information", "hint"];
const ids = (collection) => collection.all().map((each) => each.id());
const parser = new Parser();
const results = [];
for (const text of JSON.parse(readFileSync(0, "utf8"))) {
  const { document, diagnostics } = await parser.parse(text);
  results.push({
    valid: document !== undefined,
    problems: diagnostics.map((each) => ({
      severity: SEVERITIES[each.severity],
      code: String(each.code),
      path: each.path.join("."),
      message: each.message,
    })),
    channels: document ? ids(document.channels()) : [],
    operations: document ? ids(document.operations()) : [],
  });
}
process.stdout.write(JSON.stringify(results));
