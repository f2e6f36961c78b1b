import type { Context, Report } from "./context";

/**
 * Does to the environments that follow one what was done to that one. Its own end stands whatever
 * becomes of them; the command ends as the first of them that did not follow.
 */
export async function withFollowers(
  context: Context,
  environment: string,
  report: Report,
  follow: (follower: string) => Promise<Report | undefined>,
): Promise<Report> {
  const { project, pulumi, print, notes } = context;
  const followers: Report[] = [];
  const names = await project.followersOf(environment).catch((error: unknown) => {
    // Another environment's file that cannot be read takes nothing back of what is done.
    notes.push(`Whether anything follows ${environment} is not known: ${String(error)}`);
    return [];
  });
  for (const name of names) {
    try {
      const followed = await follow(name);
      if (followed === undefined) continue;
      followers.push({ environment: name, ...followed });
      if (followed.outcome !== "done") print(notFollowed(name, environment));
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      print(`${problem}\n${notFollowed(name, environment)}`);
      followers.push({ environment: name, outcome: "refused", problems: problem.split("\n") });
    }
  }
  if (followers.length === 0) return report;
  const behind = followers.find(({ outcome }) => outcome !== "done")?.outcome ?? report.outcome;
  // Something has moved: what they follow.
  const outcome = behind === "refused" && pulumi.hasTouched ? "failed" : behind;
  return { ...report, outcome, followers };
}

function notFollowed(name: string, environment: string): string {
  return (
    `${name} has not followed ${environment}, which stays as it is. ` +
    `\`baton why ${name}\` and \`baton drift ${name}\` say more.`
  );
}
