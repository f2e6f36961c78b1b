/**
 * The environments in the order an image passes them, by each one's upstream: first those that
 * take builds, then whoever takes from them. Side by side, in the order given.
 * @throws RangeError when an upstream is no environment, or is reached from itself.
 */
export function orderPath(upstreams: Readonly<Record<string, string | undefined>>): string[] {
  const ordered: string[] = [];
  const visit = (environment: string, seen: readonly string[]): void => {
    if (ordered.includes(environment)) return;
    if (seen.includes(environment)) {
      const circle = [...seen, environment].join(" → ");
      throw new RangeError(`baton:upstream goes round in a circle: ${circle}`);
    }
    const upstream = upstreams[environment];
    if (upstream !== undefined) {
      if (!(upstream in upstreams)) {
        const known = Object.keys(upstreams).join(", ");
        throw new RangeError(
          `${environment}: baton:upstream is ${upstream}; expected one of ${known}. Correct it.`,
        );
      }
      visit(upstream, [...seen, environment]);
    }
    ordered.push(environment);
  };
  for (const environment of Object.keys(upstreams)) visit(environment, []);
  return ordered;
}
