// Vercel's AI SDK, by each of its three ways: prints a line of JSON for each trial.
import assert from "node:assert";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { baseURL, chatText, embedder, HI, model, run } from "./trials.mjs";

const openai = createOpenAI({ baseURL, apiKey: "unused" });
const compatible = createOpenAICompatible({
  baseURL,
  name: "fleet",
  includeUsage: true,
  supportsStructuredOutputs: true,
});
// No temperature but 0 is the same twice; OpenAI's responses have 16 tokens at least.
const exact = { temperature: 0, maxRetries: 0, maxOutputTokens: 16 };
const schema = z.object({ colour: z.enum(["red", "blue"]) });
const look = tool({ inputSchema: schema, execute: async ({ colour }) => colour });
const ways = {
  responses: openai(model),
  chats: openai.chat(model),
  "openai-compatible": compatible(model),
};

/** Two turns, of which the second answers what the first one's messages say. */
const twoTurns = async (asked) => {
  const first = await generateText({ ...asked, messages: HI });
  const messages = [...HI, ...first.response.messages, { role: "user", content: "on" }];
  const second = await generateText({ ...asked, messages });
  const said = [...HI, { role: "assistant", content: first.text }, messages.at(-1)];
  assert.ok((await chatText(said)).startsWith(second.text.slice(0, 20)));
};

const trials = {};
for (const [way, asker] of Object.entries(ways)) {
  const asked = { ...exact, model: asker };
  trials[`${way}: generateText, streamText, a value`] = async () => {
    const whole = await generateText({ ...asked, prompt: "hi" });
    assert.ok(whole.text.startsWith((await chatText()).slice(0, 20)));
    const errors = [];
    const onError = ({ error }) => errors.push(error);
    const stream = streamText({ ...asked, prompt: "hi", onError });
    let text = "";
    for await (const part of stream.textStream) text += part;
    assert.deepEqual([text, errors], [whole.text, []]);
    assert.equal(await stream.finishReason, "length");
    assert.equal((await stream.usage).outputTokens, whole.usage.outputTokens);
    const output = Output.object({ schema });
    const told = await generateText({ ...asked, maxOutputTokens: 100, output, prompt: "hi" });
    assert.ok(["red", "blue"].includes(told.output.colour));
  };
  trials[`${way}: tools in steps, streamed`] = async () => {
    const errors = [];
    const stream = streamText({
      ...asked,
      prompt: "hi",
      tools: { look },
      maxOutputTokens: 100,
      prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber ? "none" : "required" }),
      stopWhen: stepCountIs(2),
      providerOptions: {
        openai: { parallelToolCalls: false },
        fleet: { parallel_tool_calls: false },
      },
      onError: ({ error }) => errors.push(error),
    });
    const steps = await stream.steps;
    assert.deepEqual(errors, []);
    assert.ok(["red", "blue"].includes(steps[0].toolResults[0].output));
    assert.equal(steps.length, 2);
  };
  trials[`${way}: a second turn`] = async () => {
    await twoTurns(asked);
    await twoTurns({ ...asked, providerOptions: { openai: { store: false } } });
  };
}

await run({
  ...trials,
  "responses: previousResponseId": async () => {
    const asked = { ...exact, model: ways.responses };
    const first = await generateText({ ...asked, prompt: "hi" });
    const openai = { previousResponseId: first.providerMetadata.openai.responseId };
    const second = await generateText({ ...asked, prompt: "on", providerOptions: { openai } });
    const said = [...HI, { role: "assistant", content: first.text }];
    const text = await chatText([...said, { role: "user", content: "on" }]);
    assert.ok(text.startsWith(second.text.slice(0, 20)));
  },
  "completions, embedMany, errors": async () => {
    const asked = { ...exact, model: compatible.completionModel(model), prompt: "hi" };
    assert.ok((await generateText(asked)).text);
    for (const each of [openai.embeddingModel(embedder), compatible.embeddingModel(embedder)]) {
      const told = await embedMany({ model: each, values: ["one", "two"] });
      assert.deepEqual(told.embeddings.map(({ length }) => length), [128, 128]);
    }
    await assert.rejects(
      generateText({ ...exact, model: openai("nobody"), prompt: "hi" }),
      ({ statusCode, data }) => statusCode === 404 && data.error.code === "model_not_found",
    );
  },
});
