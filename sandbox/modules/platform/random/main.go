// Command pulumi-resource-random stands in for Pulumi's random provider where that cannot be
// downloaded: RandomPassword of letters and digits only, for the sandbox only.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"reflect"
	"strings"

	rpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// version is stamped in: what the program's SDK asks for.
var version = "0.0.0"

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

type provider struct {
	rpc.UnimplementedResourceProviderServer
}

func (provider) GetPluginInfo(context.Context, *emptypb.Empty) (*rpc.PluginInfo, error) {
	return &rpc.PluginInfo{Version: version}, nil
}

func (provider) Configure(context.Context, *rpc.ConfigureRequest) (*rpc.ConfigureResponse, error) {
	return &rpc.ConfigureResponse{SupportsPreview: false}, nil
}

func (provider) Check(_ context.Context, request *rpc.CheckRequest) (*rpc.CheckResponse, error) {
	response := &rpc.CheckResponse{Inputs: request.News}
	special, set := request.News.Fields["special"]
	if !strings.Contains(request.Urn, "random:index/randomPassword:RandomPassword::") || !set || special.GetBoolValue() {
		response.Failures = []*rpc.CheckFailure{{
			Property: "special",
			Reason:   "the sandbox's stand-in makes RandomPassword with special: false only",
		}}
	}
	return response, nil
}

func (provider) Diff(_ context.Context, request *rpc.DiffRequest) (*rpc.DiffResponse, error) {
	response := &rpc.DiffResponse{Changes: rpc.DiffResponse_DIFF_NONE}
	for _, key := range []string{"length", "keepers"} {
		old, new := request.Olds.Fields[key].AsInterface(), request.News.Fields[key].AsInterface()
		if !reflect.DeepEqual(old, new) {
			response.Changes = rpc.DiffResponse_DIFF_SOME
			response.Replaces = append(response.Replaces, key)
		}
	}
	return response, nil
}

func (provider) Create(_ context.Context, request *rpc.CreateRequest) (*rpc.CreateResponse, error) {
	result := make([]byte, int(request.Properties.Fields["length"].GetNumberValue()))
	for i := range result {
		choice, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			return nil, err
		}
		result[i] = alphabet[choice.Int64()]
	}
	properties := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for key, value := range request.Properties.Fields {
		properties.Fields[key] = value
	}
	// The SDK declares it a secret.
	properties.Fields["result"] = structpb.NewStringValue(string(result))
	return &rpc.CreateResponse{Id: "none", Properties: properties}, nil
}

func (provider) Read(_ context.Context, request *rpc.ReadRequest) (*rpc.ReadResponse, error) {
	// What was generated is in the state only.
	return &rpc.ReadResponse{Id: request.Id, Inputs: request.Inputs, Properties: request.Properties}, nil
}

func (provider) Delete(context.Context, *rpc.DeleteRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, nil
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// The engine holds the other end of standard input: when that is closed, the engine is gone.
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	server := grpc.NewServer()
	rpc.RegisterResourceProviderServer(server, provider{})
	// The engine reads the port from here.
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	if err := server.Serve(listener); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
