/** The variables by which git takes whoever runs a process for this person. */
export function as(person: string) {
  const email = `${person}@example.com`;
  return {
    GIT_AUTHOR_NAME: person,
    GIT_AUTHOR_EMAIL: email,
    GIT_COMMITTER_NAME: person,
    GIT_COMMITTER_EMAIL: email,
  };
}
