/** A server's screen in the browser: from the command to the first pixels, and who does not get there. */
import { describe, expect, it } from "vitest";
import { useStage } from "../support/stage.ts";
import { press, shakeHands, visit, wholeScreen } from "./browser.ts";
import { openScene, type SceneOptions } from "./stage.ts";

const stage = useStage();
const open = async (options?: SceneOptions) => stage.keep(await openScene(stage.database, options));

describe("the road", () => {
  it("a link opens the screen: the page, the token, RFB and its password, pixels, and keys the other way", async () => {
    const at = await open();
    const token = await at.link(at.ada);
    const page = await fetch(`${at.url}/console/${token}`);
    expect(page.status).toBe(200);
    expect(await page.text()).toContain("assets/console.js");

    const browser = await at.visit(token);
    const told = await browser.told();
    expect(told).toMatchObject({ state: "open", server: "web-1" });
    expect(await shakeHands(browser, told?.password ?? "")).toEqual({ status: 0, name: "QEMU (web-1)" });
    const before = await wholeScreen(browser);
    await press(browser, "ls");
    expect(Buffer.compare(before, await wholeScreen(browser))).not.toBe(0);
    expect(at.made()[0]?.guest.typed).toBe("ls");
    await browser.close();
  });

  it("a wrong VNC password shows nothing", async () => {
    const at = await open();
    const { browser } = await at.look(at.sam);
    expect(await shakeHands(browser, "wrong")).toMatchObject({ status: 1 });
    expect(await browser.told()).toMatchObject({ state: "ended" });
  });

  it("a page of another origin gets no connection", async () => {
    const at = await open();
    const token = await at.link(at.ada);
    await expect(visit({ url: at.url, token, origin: "https://evil.example" })).rejects.toThrow(/403/);
  });
});
