import type { Context, Report } from "./context";
import { deploy, type DeployOptions } from "./deploy";
import { request, type RequestOptions } from "./request";

/**
 * `baton promote ENV`: request and deploy in one; where people's words are missing, it waits.
 * @param requested what must be done between the two, and may refuse
 */
export async function promote(
  context: Context,
  environment: string,
  options: RequestOptions & DeployOptions,
  requested: () => Promise<void> = async () => {},
): Promise<Report> {
  const asked = await request(context, environment, options);
  await requested();
  if (asked.gate !== "passes") {
    context.print("Run the same command again once that is settled.");
    return { ...asked, outcome: asked.gate === "waits" ? "waiting" : "refused" };
  }
  return { ...(await deploy(context, environment, options)), card: asked.card };
}
