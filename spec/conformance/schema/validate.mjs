// Reads a JSON list of { schema, values } from standard input, and writes for each the list of
// whether the values are valid.
import { readFileSync } from "node:fs";
import Ajv2020 from "ajv/dist/2020.js";
import addFormats from "ajv-formats";

const cases = JSON.parse(readFileSync(0, "utf8"));
const results = cases.map(({ schema, values }) => {
  const ajv = new Ajv2020({ strict: false });
  addFormats(ajv, { mode: "full" });
  const validate = ajv.compile(schema);
  return values.map((value) => validate(value));
});
process.stdout.write(JSON.stringify(results));
