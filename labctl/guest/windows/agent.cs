// The health agent for Windows: the protocol of agent.py, in C# 5, compiled in the guest by .NET.
// Usage: agent.exe CONFIG, a file of lines KEY=VALUE as agent.sh reads it.
// A program and no PowerShell script, because it runs for ever: 15 MB instead of 60, and it needs
// neither the rights nor the address reservation that HttpListener would.
using System;
using System.Diagnostics;
using System.IO;
using System.Linq;
using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Runtime.Serialization.Json;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Text;
using System.Threading;
using System.Xml;
using System.Xml.Linq;

public static class LabctlAgent
{
    const int RequestLimit = 8192, AnswerLimit = 8192, MetricsLimit = 4096;
    const int RequestMilliseconds = 5000; // a client that is slower is dropped
    const double EagerSeconds = 300; // so long, a not yet healthy application is asked each second
    const int Clients = 8; // at once; more wait in the queue of the system
    const string Initializing = "Initializing", Healthy = "Healthy", Unhealthy = "Unhealthy";
    const string Unknown = "Unknown";

    static readonly Encoding Latin = Encoding.GetEncoding("iso-8859-1");
    static readonly object Guard = new object();
    static readonly Stopwatch Clock = Stopwatch.StartNew();

    static string bootId = "", tokenHash = "", protocol = "http", path = "/", address = "0.0.0.0";
    static int port = 17800, appPort = 80, needed = 1;
    static double interval = 5, grace = -1;
    static bool isRich;
    static string silence;

    static string state = Initializing, detail = "not probed yet", metrics = "", streakState = "";
    static long since = Now();
    static int streak;
    static bool hasBeenHealthy;

    public static int Main(string[] arguments)
    {
        ReadConfig(arguments[0]);
        TcpListener listener = new TcpListener(IPAddress.Parse(address), port);
        listener.Server.ExclusiveAddressUse = true;
        listener.Start(64);
        new Thread(delegate() { Serve(listener); }, 256 * 1024) { IsBackground = true }.Start();
        while (true)
        {
            double began = Clock.Elapsed.TotalSeconds;
            string seen;
            string found = Probe(out seen);
            Note(found, seen);
            bool isEager = Clock.Elapsed.TotalSeconds < EagerSeconds && !hasBeenHealthy;
            double pause = isEager ? Math.Min(1, interval) : interval;
            double left = pause - (Clock.Elapsed.TotalSeconds - began);
            Thread.Sleep((int)(Math.Max(0.1, left) * 1000));
        }
    }

    static void ReadConfig(string file)
    {
        foreach (string line in File.ReadAllLines(file))
        {
            int at = line.IndexOf('=');
            if (at < 0) continue;
            string value = line.Substring(at + 1);
            switch (line.Substring(0, at))
            {
                case "tokenSha256": tokenHash = value; break;
                case "bootId": bootId = value; break;
                case "address": address = value; break;
                case "port": port = int.Parse(value); break;
                case "protocol": protocol = value; break;
                case "appPort": appPort = int.Parse(value); break;
                case "requestPath": path = value == "" ? "/" : value; break;
                case "intervalSeconds": interval = int.Parse(value); break;
                case "numberOfProbes": needed = int.Parse(value); break;
                case "typeHandlerVersion": isRich = value == "2.0"; break;
                case "gracePeriodSeconds": grace = int.Parse(value); break;
            }
        }
        if (grace < 0) grace = interval * needed;
        silence = isRich && protocol != "tcp" ? Unknown : Unhealthy; // what no usable answer means
    }

    static long Now()
    {
        return (long)(DateTime.UtcNow - new DateTime(1970, 1, 1)).TotalSeconds;
    }

    // --- The verdict ------------------------------------------------------------------------------

    static void Note(string found, string seen)
    {
        streak = found == streakState ? streak + 1 : 1;
        streakState = found;
        bool isSettled = streak >= needed;
        if (isRich && state == Initializing)
        {
            // Silence is no report: an application that is not up yet has its grace period.
            isSettled = isSettled && found != Unknown;
            if (!isSettled && Clock.Elapsed.TotalSeconds >= grace)
            {
                seen = "no steady answer within " + grace + " s; " + seen;
                found = silence;
                isSettled = true;
            }
        }
        if (!isSettled) return;
        lock (Guard)
        {
            detail = seen;
            if (found != state)
            {
                state = found;
                since = Now();
            }
        }
        hasBeenHealthy = hasBeenHealthy || found == Healthy;
    }

    static string Probe(out string seen)
    {
        string place = protocol == "tcp" ? "port " + appPort : path;
        double deadline = Clock.Elapsed.TotalSeconds + interval;
        try
        {
            using (TcpClient client = new TcpClient())
            {
                IAsyncResult connecting = client.BeginConnect(IPAddress.Loopback, appPort, null, null);
                if (!connecting.AsyncWaitHandle.WaitOne(TimeSpan.FromSeconds(interval)))
                    throw new IOException("timed out");
                client.EndConnect(connecting);
                if (protocol == "tcp")
                {
                    seen = place + " accepts";
                    return Healthy;
                }
                return Ask(client, deadline, out seen);
            }
        }
        catch (Exception error)
        {
            if (!IsOfTheNetwork(error)) throw;
            seen = place + ": " + error.Message.Split('\n')[0].Trim();
            return silence;
        }
    }

    static bool IsOfTheNetwork(Exception error)
    {
        return error is IOException || error is SocketException || error is ObjectDisposedException
            || error is InvalidOperationException
            || error is AuthenticationException;
    }

    static string Ask(TcpClient client, double deadline, out string seen)
    {
        Stream stream = client.GetStream();
        stream.ReadTimeout = stream.WriteTimeout = Math.Max(1, (int)(interval * 1000));
        if (protocol == "https")
        {
            // The application is on this machine; its certificate names the outside.
            SslStream secure = new SslStream(stream, false, delegate { return true; });
            // TLS 1.0 to 1.2 by number: what is compiled in a guest gets only 1.0 otherwise.
            secure.AuthenticateAsClient("localhost", null, (SslProtocols)(192 | 768 | 3072), false);
            stream = secure;
        }
        // Who is asked in 1.0 does not answer in chunks.
        byte[] head = Encoding.ASCII.GetBytes(
            "GET " + path + " HTTP/" + (isRich ? "1.0" : "1.1") + "\r\nHost: 127.0.0.1:" + appPort
            + "\r\nUser-Agent: labctl-health\r\nAccept: */*\r\nConnection: close\r\n\r\n");
        stream.Write(head, 0, head.Length);
        string answer = isRich
            ? Receive(client, stream, deadline, AnswerLimit, delegate(string text) { return FindDocument(text) != null; })
            : Receive(client, stream, deadline, 1024, delegate(string text) { return text.Contains("\n"); });
        string[] words = answer.Split('\n')[0].Split(new[] { ' ', '\r' }, StringSplitOptions.RemoveEmptyEntries);
        int status;
        if (words.Length < 2 || !words[0].StartsWith("HTTP/", StringComparison.Ordinal)
            || !int.TryParse(words[1], out status))
        {
            seen = "no HTTP answer from " + path;
            return silence;
        }
        seen = "HTTP " + status + " from " + path;
        if (!isRich) return status == 200 ? Healthy : Unhealthy;
        if (status < 200 || status > 299) return Unknown;
        return ReadRich(answer, ref seen);
    }

    static string Receive(TcpClient client, Stream stream, double deadline, int limit, Predicate<string> isEnough)
    {
        StringBuilder text = new StringBuilder();
        byte[] buffer = new byte[limit];
        while (text.Length < limit && !isEnough(text.ToString()))
        {
            double left = deadline - Clock.Elapsed.TotalSeconds;
            if (left <= 0) throw new IOException("timed out");
            client.ReceiveTimeout = Math.Max(1, (int)(left * 1000));
            int count = stream.Read(buffer, 0, limit - text.Length);
            if (count == 0) break;
            text.Append(Latin.GetString(buffer, 0, count)); // one character for each byte
        }
        return text.ToString();
    }

    // --- Rich answers -----------------------------------------------------------------------------

    static XElement FindDocument(string answer)
    {
        string text = answer.Replace("\r\n", "\n");
        int body = text.IndexOf("\n\n", StringComparison.Ordinal);
        if (body < 0) return null;
        int begin = text.IndexOf('{', body), end = text.LastIndexOf('}');
        if (begin < 0 || end < begin) return null;
        // What is not UTF-8 is replaced, as agent.py does.
        string document = Encoding.UTF8.GetString(Latin.GetBytes(text.Substring(begin, end - begin + 1)));
        if (HasLooseComma(document)) return null;
        byte[] bytes = Encoding.UTF8.GetBytes(document);
        try
        {
            XmlDictionaryReaderQuotas quotas = new XmlDictionaryReaderQuotas();
            quotas.MaxDepth = 32;
            using (XmlReader reader = JsonReaderWriterFactory.CreateJsonReader(bytes, quotas))
                return XElement.Load(reader);
        }
        catch (XmlException) { return null; }
        catch (FormatException) { return null; }
        catch (ArgumentException) { return null; }
    }

    // Some readers take `{"a": 1,}`, which is no JSON.
    static bool HasLooseComma(string document)
    {
        bool isText = false, isAfterComma = false;
        for (int i = 0; i < document.Length; i++)
        {
            char each = document[i];
            if (isText && each == '\\') i++;
            else if (each == '"') isText = !isText;
            if (isText || char.IsWhiteSpace(each)) continue;
            if (isAfterComma && (each == '}' || each == ']')) return true;
            isAfterComma = each == ',';
        }
        return false;
    }

    static string ReadRich(string answer, ref string seen)
    {
        string found = Unknown, told = "";
        XElement document = FindDocument(answer);
        foreach (XElement each in document == null ? new XElement[0] : document.Elements())
        {
            // What is no name in XML is told by an attribute.
            XAttribute item = each.Attribute("item");
            string key = (item == null ? each.Name.LocalName : item.Value).ToLowerInvariant();
            string type = (string)each.Attribute("type") ?? "string";
            if (key == "applicationhealthstate" && type == "string") found = Capitalize(each.Value.Trim());
            if (key == "custommetrics") told = type == "object" ? WriteJson(each) : type == "string" ? each.Value : "";
        }
        if (found != Healthy && found != Unhealthy)
        {
            seen += ", without a valid ApplicationHealthState";
            return Unknown;
        }
        seen += ": " + found;
        lock (Guard) metrics = told.Length <= MetricsLimit ? told : "";
        return found;
    }

    static string Capitalize(string text)
    {
        return text == "" ? "" : char.ToUpperInvariant(text[0]) + text.Substring(1).ToLowerInvariant();
    }

    static string WriteJson(XElement element)
    {
        XElement root = new XElement(element) { Name = "root" };
        using (MemoryStream memory = new MemoryStream())
        {
            using (XmlDictionaryWriter writer = JsonReaderWriterFactory.CreateJsonWriter(memory, Encoding.UTF8, false))
                root.WriteTo(writer);
            return Encoding.UTF8.GetString(memory.ToArray());
        }
    }

    // --- Telling ----------------------------------------------------------------------------------

    static void Serve(TcpListener listener)
    {
        Semaphore room = new Semaphore(Clients, Clients);
        while (true)
        {
            room.WaitOne();
            try
            {
                TcpClient client = listener.AcceptTcpClient();
                new Thread(delegate() { Answer(client, room); }, 256 * 1024) { IsBackground = true }.Start();
            }
            catch (SocketException) // out of handles: it passes
            {
                room.Release();
                Thread.Sleep(200);
            }
        }
    }

    static void Answer(TcpClient client, Semaphore room)
    {
        try
        {
            using (client)
            {
                NetworkStream stream = client.GetStream();
                stream.WriteTimeout = RequestMilliseconds;
                double deadline = Clock.Elapsed.TotalSeconds + RequestMilliseconds / 1000.0;
                string head = Receive(client, stream, deadline, RequestLimit, delegate(string text) { return text.Contains("\r\n\r\n"); });
                byte[] answer = Respond(head);
                stream.Write(answer, 0, answer.Length);
                client.Client.Shutdown(SocketShutdown.Send);
            }
        }
        catch (IOException) { } // the client went away; nobody is left to tell
        catch (SocketException) { }
        finally
        {
            room.Release();
        }
    }

    static byte[] Respond(string head)
    {
        string[] lines = head.Split(new[] { "\r\n" }, StringSplitOptions.None);
        string[] words = lines[0].Split(' ');
        if (words.Length != 3 || !words[2].StartsWith("HTTP/1.", StringComparison.Ordinal) || !head.Contains("\r\n\r\n"))
            return Response("400 Bad Request", "{\"error\": \"bad request\"}");
        if (!lines.Skip(1).Any(IsAllowed))
            return Response("401 Unauthorized", "{\"error\": \"wrong or no token\"}");
        if (words[1] != "/health")
            return Response("404 Not Found", "{\"error\": \"only /health is here\"}");
        if (words[0] != "GET")
            return Response("405 Method Not Allowed", "{\"error\": \"only GET\"}");
        lock (Guard)
        {
            string body = "{\"state\": " + Quote(state) + ", \"detail\": " + Quote(detail)
                + ", \"since\": " + since + ", \"bootId\": " + Quote(bootId);
            if (metrics != "") body += ", \"customMetrics\": " + Quote(metrics);
            return Response("200 OK", body + "}");
        }
    }

    static bool IsAllowed(string line)
    {
        int colon = line.IndexOf(':');
        if (colon < 0) return false;
        string name = line.Substring(0, colon).Trim().ToLowerInvariant();
        string value = line.Substring(colon + 1).Trim(), token;
        if (name == "authorization" && value.StartsWith("bearer ", StringComparison.OrdinalIgnoreCase))
            token = value.Substring(7).Trim();
        else if (name == "x-labctl-token")
            token = value;
        else
            return false;
        string hash;
        using (SHA256 sha = SHA256.Create())
            hash = BitConverter.ToString(sha.ComputeHash(Latin.GetBytes(token))).Replace("-", "").ToLowerInvariant();
        // Every character is looked at, so that the time it takes tells nothing.
        int difference = hash.Length ^ tokenHash.Length;
        for (int i = 0; i < hash.Length && i < tokenHash.Length; i++) difference |= hash[i] ^ tokenHash[i];
        return difference == 0;
    }

    static byte[] Response(string status, string body)
    {
        byte[] content = Encoding.UTF8.GetBytes(body + "\n");
        string head = "HTTP/1.1 " + status + "\r\nContent-Type: application/json\r\nContent-Length: "
            + content.Length + "\r\nConnection: close\r\n\r\n";
        return Encoding.ASCII.GetBytes(head).Concat(content).ToArray();
    }

    static string Quote(string text)
    {
        StringBuilder quoted = new StringBuilder("\"");
        foreach (char each in text)
        {
            if (each == '"' || each == '\\') quoted.Append('\\').Append(each);
            else if (each < ' ' || each > '~') quoted.AppendFormat("\\u{0:x4}", (int)each);
            else quoted.Append(each);
        }
        return quoted.Append('"').ToString();
    }
}
