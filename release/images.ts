import type { Problem } from "./problem";

/** Images beside the release's own, by the key that names them. */
export type ImagesByKey = Readonly<Record<string, string>>;

/** Images whose names could mean others by the time they run, where people approve what does. */
export function unpinnedImages(environment: string, images: ImagesByKey): Problem[] {
  return Object.entries(images)
    .filter(([, image]) => !/@sha256:[0-9a-f]{64}$/.test(image))
    .map(([property, image]) => ({
      where: environment,
      property,
      value: image,
      expected: "an image with its digest, as people approve what runs here",
      fix: `Pin it: ${image.replace(/@.*$/, "")}@sha256:…`,
    }));
}
