// What the OpenAPI document says of resources: see api/staff/resources.py for the extensions that are read here.

import { api } from "./mall.js";

const described = await api("GET", "/openapi.json");
const PAGING = ["after", "before", "limit"];

/** A schema with its reference followed, and "this or null" as `nullable`. */
export function plain(schema = {}) {
  if (schema.$ref) {
    const { $ref, ...own } = schema;
    return { ...plain(described.components.schemas[$ref.split("/").pop()]), ...own };
  }
  const { anyOf, oneOf, ...own } = schema;
  const choices = anyOf ?? oneOf;
  const real = choices?.filter((choice) => choice.type !== "null") ?? [];
  return real.length === 1 ? { ...plain(real[0]), ...own, nullable: choices.length > 1 } : schema;
}

function* operations() {
  for (const [path, methods] of Object.entries(described.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      yield { ...operation, path, method: method.toUpperCase() };
    }
  }
}

const parametersOf = (operation, where) => (operation.parameters ?? []).filter((one) => one.in === where);

/** An operation as a button needs it: its words, its action, the fields of its body. */
function buttonOf(operation) {
  const body = plain(operation.requestBody?.content?.["application/json"]?.schema);
  return {
    ...operation["x-resource-action"],
    id: operation.operationId,
    method: operation.method,
    path: operation.path,
    summary: operation.summary,
    description: operation.description,
    action: operation["x-action"],
    ofOne: operation.path.includes("{"),
    properties: body.properties ?? {},
    required: body.required ?? [],
    takesBody: Boolean(operation.requestBody),
    takesKey: parametersOf(operation, "header").some((one) => one.name === "Idempotency-Key"),
  };
}

/** A resource with its list (`path`, `filters`, whether it `pages`), the `onePath` of a single thing if there is
 * one, and its `buttons`; undefined if there is none of this name. */
export function resource(name) {
  const all = [...operations()];
  const list = all.find((operation) => operation["x-resource"]?.name === name);
  if (!list) return undefined;
  const page = plain(list.responses["200"].content["application/json"].schema);
  return {
    ...list["x-resource"],
    path: list.path,
    filters: parametersOf(list, "query").filter((one) => !PAGING.includes(one.name)),
    onePath: all.find((one) => one.method === "GET" && one.path.replace(/\{\w+\}$/, "") === `${list.path}/`)?.path,
    pages: parametersOf(list, "query").some((one) => one.name === "limit"),
    properties: plain(plain(page.properties.items).items).properties,
    buttons: all.filter((operation) => operation["x-resource-action"]?.resource === name).map(buttonOf),
  };
}
