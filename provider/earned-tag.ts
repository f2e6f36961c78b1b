import { openRegistry, type RegistryLocation } from "../registry/registry";

export interface EarnedTagInputs extends RegistryLocation {
  readonly digest: string;
  readonly tag: string;
}

/** Adds the tag; registry credentials come from the environment, so that no state holds them. */
export async function create(inputs: EarnedTagInputs): Promise<string> {
  await openRegistry(inputs).tag(inputs.digest, inputs.tag);
  return `${inputs.repository}:${inputs.tag}`;
}

export async function read(inputs: EarnedTagInputs): Promise<EarnedTagInputs | undefined> {
  const digest = await openRegistry(inputs).resolve(inputs.tag);
  return digest === undefined ? undefined : { ...inputs, digest };
}
