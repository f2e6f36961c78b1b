import Ajv, { type ValidateFunction } from "ajv/dist/2019";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const SPEC = join(__dirname, "..", "fixtures", "pulumi-cloud-api", "spec.json");
const PREFIX = "#/components/schemas/";

interface Schema extends Readonly<Record<string, unknown>> {
  readonly discriminator?: {
    readonly propertyName: string;
    readonly mapping: Readonly<Record<string, string>>;
  };
}
type Schemas = Readonly<Record<string, Schema>>;

/** Checks the body of a request by the schema of that name, as Pulumi Cloud publishes it. */
export class PulumiCloudApi {
  private readonly ajv = new Ajv({ strict: false, allErrors: true, validateFormats: false });

  constructor() {
    const { components } = JSON.parse(readFileSync(SPEC, "utf8")) as {
      components: { schemas: Schemas };
    };
    this.ajv.addSchema({ $id: "spec", components: { schemas: asJsonSchemas(components.schemas) } });
  }

  /** What is wrong with it, a line each. */
  problems(schema: string, body: unknown): string[] {
    const validate: ValidateFunction | undefined = this.ajv.getSchema(`spec${PREFIX}${schema}`);
    if (validate === undefined) throw new Error(`the API has no ${schema}`);
    validate(body);
    return (validate.errors ?? []).map(
      ({ instancePath, message, params }) =>
        `${instancePath} ${message ?? ""} ${JSON.stringify(params)}`,
    );
  }
}

/**
 * OpenAPI's schemas as JSON Schema: a discriminator becomes a choice, and what the API does not
 * name may not be sent, where the published ones say nothing of it.
 */
function asJsonSchemas(schemas: Schemas): Schemas {
  const base = (name: string) => `${name}-base`;
  const choices = Object.keys(schemas).filter((name) => schemas[name]?.discriminator !== undefined);
  const variants = choices.flatMap((name) =>
    Object.values(schemas[name]?.discriminator?.mapping ?? {}).map((ref) =>
      ref.slice(PREFIX.length),
    ),
  );
  const made: Record<string, Schema> = {};
  for (const [name, schema] of Object.entries(schemas)) {
    const { discriminator, ...plain } = schema;
    if (discriminator !== undefined) {
      made[base(name)] = plain;
      made[name] = {
        oneOf: Object.entries(discriminator.mapping).map(([value, $ref]) => ({
          allOf: [{ properties: { [discriminator.propertyName]: { const: value } } }, { $ref }],
        })),
      };
      continue;
    }
    const text = JSON.stringify(plain);
    // A variant extends what its choice has in common, and is none of the choices itself.
    const own = variants.includes(name)
      ? choices.reduce(
          (now, one) => now.replaceAll(`"${PREFIX}${one}"`, `"${PREFIX}${base(one)}"`),
          text,
        )
      : text;
    made[name] = { ...(JSON.parse(own) as Schema), unevaluatedProperties: false };
  }
  return made;
}
