/** The registry could not be asked, or refused. The message says which, and what to do. */
export class RegistryError extends Error {
  override readonly name: string = "RegistryError";
}

/** The tag exists and names another image. */
export class TagConflictError extends RegistryError {
  override readonly name = "TagConflictError";
  constructor(repository: string, tag: string, current: string, wanted: string) {
    super(
      `${repository}: tag ${tag} is ${current}; expected ${wanted}. ` +
        "Tags never move: find out who gave it, and use a new build number or version.",
    );
  }
}

/** A release did not get to its registry in time. */
export class NotArrivedError extends RegistryError {
  override readonly name = "NotArrivedError";
  constructor(
    /** What there is instead, for people. */
    readonly value: string,
    readonly fix: string,
  ) {
    super(`${value}. ${fix}.`);
  }
}
