/** `host[:port]/name` split at its first slash. */
export function splitRepository(repository: string): { host: string; name: string } {
  const slash = repository.indexOf("/");
  return { host: repository.slice(0, slash), name: repository.slice(slash + 1) };
}

/**
 * The full name of an image that may leave its registry out: `tests:1` becomes
 * `registry.example.com/tests:1` beside `registry.example.com/podinfo`. As in Docker's own rule, a
 * first part with a dot or a colon, or `localhost`, is a registry
 * (https://github.com/distribution/reference/blob/main/normalize.go).
 */
export function qualifyImage(image: string, repository: string): string {
  const first = image.split("/")[0] ?? "";
  const hasHost = image.includes("/") && (/[.:]/.test(first) || first === "localhost");
  return hasHost ? image : `${splitRepository(repository).host}/${image}`;
}
