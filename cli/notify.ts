import { Git } from "../ledger/git";
import { checkName, type Context, type Report } from "./context";
import { Slack } from "./slack";

export interface NotifyOptions {
  /** What did not pass. */
  readonly failed: string;
  readonly revision: string;
  readonly build?: string;
  /** Whoever committed the revision, unless given. */
  readonly committer?: string;
  readonly url?: string;
}

/**
 * `baton notify ENV`: says for a pipeline that a build failed, to its committer and to the
 * channels of an environment. That Slack is away fails no pipeline.
 */
export async function notify(
  { project, print }: Context,
  environment: string,
  { failed, revision, build, committer, url }: NotifyOptions,
): Promise<Report> {
  checkName(environment);
  const slack = new Slack(await project.config(environment));
  slack.announce({
    kind: "build-failed",
    gate: failed,
    revision,
    build,
    committer: committer ?? (await committerOf(project.folder, revision)),
    url,
  });
  const unsent = await slack.settle();
  for (const name of slack.told) print(`Slack: ${name} was told that ${failed} failed.`);
  for (const sentence of unsent) print(sentence);
  if (slack.told.length + unsent.length === 0) {
    print("Slack: nobody was told: without SLACK_TOKEN and baton:announce.builds, nobody is.");
  }
  return { outcome: "done", environment, told: slack.told, unsent };
}

/** Their email address; nothing where the project's repository does not have the revision. */
async function committerOf(folder: string, revision: string): Promise<string | undefined> {
  const format = "--format=%ce%n%ae";
  const args = ["log", "-1", "--no-show-signature", format, "--end-of-options", revision, "--"];
  const said = (await new Git(folder).try(...args)) ?? "";
  // A merge that was made on a website is committed by the website.
  const emails = said.split("\n").filter((email) => email !== "");
  return emails.find((email) => !/^no-?reply@/i.test(email));
}
